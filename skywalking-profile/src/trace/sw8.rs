//! The `sw8` request header: the caller's trace.
//!
//! Format: "SkyWalking Cross Process Propagation Headers Protocol v3" of apache/skywalking's documentation: eight fields
//! joined by `-`, strings among them in base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;

/// The span that called this service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(crate) trace_id: String,
    pub(crate) segment_id: String,
    pub(crate) span_id: i32,
    pub(crate) service: String,
    pub(crate) instance: String,
    pub(crate) endpoint: String,
    pub(crate) address: String,
}

impl Parent {
    /// `None` without a valid `sw8` header: the request then begins a trace.
    pub(crate) fn of_headers(headers: &HeaderMap) -> Option<Self> {
        Self::parse(headers.get("sw8")?.to_str().ok()?)
    }

    fn parse(header: &str) -> Option<Self> {
        let mut fields = header.split('-');
        // Whether the caller sampled its trace. Like the Java agent's, our trace does not depend on it.
        let _sampled = fields.next()?;
        let text =
            |field: Option<&str>| String::from_utf8(STANDARD.decode(field?).ok()?).ok().filter(|text| !text.is_empty());
        let parent = Self {
            trace_id: text(fields.next())?,
            segment_id: text(fields.next())?,
            span_id: fields.next()?.parse().ok().filter(|id| *id >= 0)?,
            service: text(fields.next())?,
            instance: text(fields.next())?,
            endpoint: text(fields.next())?,
            address: text(fields.next())?,
        };
        fields.next().is_none().then_some(parent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The documentation's example.
    const HEADER: &str = "1-TRACEID-SEGMENTID-3-PARENT_SERVICE-PARENT_INSTANCE-PARENT_ENDPOINT-IPPORT";

    fn header() -> String {
        HEADER
            .split('-')
            .enumerate()
            .map(|(i, field)| if i == 0 || i == 3 { field.to_owned() } else { STANDARD.encode(field) })
            .collect::<Vec<_>>()
            .join("-")
    }

    #[test]
    fn a_header_names_the_calling_span() {
        let parent = Parent::parse(&header()).unwrap();
        assert_eq!((parent.trace_id.as_str(), parent.span_id, parent.address.as_str()), ("TRACEID", 3, "IPPORT"));
    }

    #[test]
    fn anything_else_begins_a_new_trace() {
        let header = header();
        for bad in
            ["", "1", HEADER, &header.replace("-3-", "--1-"), &format!("{header}-x"), &header[..header.len() - 9]]
        {
            assert_eq!(Parent::parse(bad), None, "{bad}");
        }
    }
}
