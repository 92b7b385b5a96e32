//! Which requests an endpoint name stands for.

use std::fmt;

use matchit::Router;

/// Longer endpoint names are cut by the OAP (`SW_ENDPOINT_NAME_MAX_LENGTH`, 150 characters by default).
const LONGEST: usize = 150;

/// The part of an endpoint's name that the OAP keeps.
pub(crate) fn cut_endpoint(name: &str) -> &str {
    name.char_indices().nth(LONGEST).map_or(name, |(end, _)| &name[..end])
}

/// What is known of the way of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Route<'a> {
    /// The route that a web framework has matched it to, such as `/orders/{id}`.
    Matched(&'a str),
    /// Its raw path: no framework has matched it.
    Raw(&'a str),
}

impl<'a> Route<'a> {
    pub(crate) fn as_str(self) -> &'a str {
        match self {
            Self::Matched(route) | Self::Raw(route) => route,
        }
    }
}

/// A task's endpoint, `METHOD:/route`.
pub(crate) struct Endpoint {
    name: String,
    /// For raw paths, if the route has parameters.
    pattern: Option<Pattern>,
}

struct Pattern {
    method: String,
    router: Router<()>,
}

impl Endpoint {
    /// A name with braces that are no route pattern stands for itself alone.
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), pattern: Pattern::of(name).unwrap_or(None) }
    }

    /// Compares names whole, as far as the OAP keeps them; a raw path may also fit the pattern. In the syntax of matchit
    /// 0.8, which is axum's: `/orders/{id}`, `/files/{*path}`.
    pub(crate) fn is_of(&self, method: &str, route: Route<'_>) -> bool {
        if is_named(&self.name, method, route.as_str()) {
            return true;
        }
        match (route, &self.pattern) {
            (Route::Raw(path), Some(pattern)) => pattern.method == method && pattern.router.at(path).is_ok(),
            (Route::Raw(_) | Route::Matched(_), _) => false,
        }
    }
}

impl Pattern {
    /// `None` if the name has no parameters.
    fn of(name: &str) -> Result<Option<Self>, matchit::InsertError> {
        let Some((method, route)) = name.split_once(':').filter(|(_, route)| route.contains(['{', '}'])) else {
            return Ok(None);
        };
        let mut router = Router::new();
        router.insert(route, ())?;
        Ok(Some(Self { method: method.to_owned(), router }))
    }
}

/// Whether the braces of an endpoint's name, if it has any, are those of a route pattern.
pub(super) fn is_well_formed(name: &str) -> bool {
    Pattern::of(name).is_ok()
}

/// Whether `endpoint` is `METHOD:route`, as far as the OAP keeps names.
fn is_named(endpoint: &str, method: &str, route: &str) -> bool {
    let Some(rest) = endpoint.strip_prefix(method).and_then(|rest| rest.strip_prefix(':')) else { return false };
    let is_cut = |rest: &str| route.starts_with(rest) && endpoint.chars().count() == LONGEST;
    rest == route || is_cut(rest)
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn is_endpoint(name: &str, method: &str, path: &str) -> bool {
        Endpoint::new(name).is_of(method, Route::Raw(path))
    }

    #[test]
    fn endpoints_are_compared_whole() {
        assert!(!is_endpoint("GET:/orders", "GET", "/orders/7"));
        assert!(!is_endpoint("GET:/orders", "POST", "/orders"));
        assert!(!is_endpoint("GET/orders", "GET", "/orders"));
        assert!(!is_endpoint("GET:/o", "GET", "/orders"));
        assert!(Endpoint::new("GET:/orders/{id}").is_of("GET", Route::Matched("/orders/{id}")));
        assert!(!Endpoint::new("GET:/orders/{id}").is_of("GET", Route::Matched("/orders/7")));
    }

    #[test]
    fn raw_paths_fit_patterns() {
        assert!(is_endpoint("GET:/orders/{id}", "GET", "/orders/7"));
        assert!(is_endpoint("GET:/orders/{id}", "GET", "/orders/{id}"));
        assert!(!is_endpoint("GET:/orders/{id}", "PUT", "/orders/7"));
        assert!(!is_endpoint("GET:/orders/{id}", "GET", "/orders/7/lines"));
        assert!(!is_endpoint("GET:/orders/{id}", "GET", "/orders/"));
        assert!(is_endpoint("GET:/files/{*path}", "GET", "/files/a/b.txt"));
    }

    #[test]
    fn what_is_no_pattern_stands_for_itself() {
        for odd in ["GET:/a{", "GET:/}", "GET:/{}", "GET:/{a}{b}", "{GET}:/"] {
            assert!(!is_endpoint(odd, "GET", "/a"), "{odd}");
        }
        assert!(is_endpoint("GET:/a{", "GET", "/a{"));
        assert!(!is_well_formed("GET:/a{") && is_well_formed("GET:/a") && is_well_formed("GET:/{a}"));
    }

    #[test]
    fn endpoint_names_are_cut_as_the_oap_cuts_them() {
        assert_eq!(cut_endpoint("GET:/"), "GET:/");
        assert_eq!(cut_endpoint(&"ü".repeat(151)), "ü".repeat(150));
        let long = format!("/{}", "x".repeat(200));
        assert!(is_endpoint(cut_endpoint(&format!("GET:{long}")), "GET", &long));
    }
}
