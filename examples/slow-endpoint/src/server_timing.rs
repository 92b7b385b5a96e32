//! What the program itself measured of a request, told in the response's `server-timing` header or trailer.

use std::fmt::Write;
use std::time::{Duration, Instant};

use axum::Json;
use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

/// Times of functions, each with what it called, in the order in which they ended.
#[derive(Debug, Default)]
pub(crate) struct ServerTiming(Vec<(&'static str, Duration)>);

impl ServerTiming {
    /// Notes that `function` began at `since` and ends now.
    pub(crate) fn note(&mut self, function: &'static str, since: Instant) {
        self.add(function, since.elapsed());
    }

    /// Notes that `function` took this long, and has ended.
    pub(crate) fn add(&mut self, function: &'static str, took: Duration) {
        self.0.push((function, took));
    }

    /// A response that tells these times.
    pub(crate) fn response(&self, body: Value) -> Response {
        ([("server-timing", self.header())], Json(body)).into_response()
    }

    /// `method3;dur=60.41, method2;dur=40.22`: milliseconds, the outermost function first.
    pub(crate) fn header(&self) -> HeaderValue {
        let mut header = String::new();
        for (function, took) in self.0.iter().rev() {
            let separator = if header.is_empty() { "" } else { ", " };
            let _ = write!(header, "{separator}{function};dur={:.2}", took.as_secs_f64() * 1000.0);
        }
        HeaderValue::from_str(&header).unwrap_or(HeaderValue::from_static(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outermost_function_comes_first() {
        let mut timing = ServerTiming::default();
        let start = Instant::now();
        timing.note("inner", start);
        timing.note("outer", start);
        let header = timing.header();
        let functions: Vec<_> =
            header.to_str().unwrap().split(", ").filter_map(|time| time.split(";dur=").next()).collect();
        assert_eq!(functions, ["outer", "inner"]);
    }
}
