//! What the trees of the example's endpoints have in common.

use crate::{AnalysedTree, Node, Response, TOLERANCE_MS};

/// The function of every await in the first two endpoints that is not on another of their functions.
pub const SLEEP: &str = "tokio::time::sleep::Sleep";
/// Polled and not seen by any sample.
pub const RUNNING: &str = "[running]";
/// Woken and not polled yet.
pub const SCHEDULED: &str = "[scheduled: waiting for a worker]";
/// Suspended, nobody knows where.
const PENDING: &str = "[pending]";

/// What the order's functions await.
const UPSTREAM: [(&str, &str); 4] = [
    ("connect_upstream", "tokio::io::util::read_exact::ReadExact"),
    ("await_response", "hyper::client::conn::http1::SendRequest::send_request"),
    ("read_body", "http_body_util::combinators::collect::Collect"),
    ("stream_answer", SLEEP),
];

const CONNECT: &str = "tokio::net::tcp::stream::TcpStream::connect";

/// Whether the node is one of the example's own functions.
fn is_application(node: &Node) -> bool {
    node.function().starts_with("slow_endpoint::")
}

/// Whether the node is a name for time outside of all functions, or for a part of its parent's: any wait ends as
/// `[scheduled: waiting for a worker]` if the machine has no time for it.
fn is_note(node: &Node) -> bool {
    node.function().starts_with('[')
}

/// Whether the node's location is `file.rs:line`.
fn is_located(node: &Node) -> bool {
    let parts = node.location().and_then(|location| location.rsplit_once(':'));
    parts.is_some_and(|(file, line)| file.ends_with(".rs") && line.parse::<u32>().is_ok())
}

/// [`assert_well_named`], of a request that only awaits.
#[track_caller]
pub fn assert_well_formed(tree: &AnalysedTree) {
    assert_well_named(tree);
    for node in tree.nodes().iter().filter(|node| is_application(node)) {
        assert!(tree.children(node).next().is_some(), "{} awaits nothing in\n{tree}", node.signature);
    }
}

/// Each function of the example is one node that has a place, but for those that a library calls; below it stands what
/// it awaits or calls, and nothing of how. Below a wait for another task may stand what that task did.
#[track_caller]
pub fn assert_well_named(tree: &AnalysedTree) {
    for node in tree.nodes() {
        let signature = &node.signature;
        assert!(node.self_duration_ms >= 0, "negative self time of {signature} in\n{tree}");
        if is_application(node) {
            tree.node(node.function());
            let parent = tree.parent(node).unwrap_or_else(|| panic!("{signature} is the root of\n{tree}"));
            // Where another task's function begins says its signature, or not.
            if is_application(parent) || parent.signature == tree.root().signature {
                assert_ne!(is_application(parent), !is_located(node), "the place of {signature} in\n{tree}");
            }
        } else if is_note(node) {
            assert_ne!(signature, PENDING, "in\n{tree}");
        } else if signature != &tree.root().signature {
            assert!(is_located(node), "{signature} has no place in\n{tree}");
            let is_expected = |child: &Node| is_note(child) || is_application(child);
            assert!(tree.children(node).all(is_expected), "more than {signature} in\n{tree}");
        }
    }
}

/// Every time that the program has measured is the tree's.
#[track_caller]
pub fn assert_exact(tree: &AnalysedTree, response: &Response) {
    response.timing("total");
    for (name, _) in &response.server_timing {
        assert_exact_of(tree, response, name);
    }
}

/// The time that the program has measured for `name` is the tree's.
#[track_caller]
pub fn assert_exact_of(tree: &AnalysedTree, response: &Response, name: &str) {
    let node = match name {
        "total" => tree.root(),
        // The handler's own.
        "sleep" => tree.child(tree.node("song"), SLEEP),
        function => tree.node(function),
    };
    let ms = response.timing(name);
    // The program's clock starts with its handler: what the request waited for a thread before is not in its total.
    let outside = if name == "total" { notes(tree) } else { 0 };
    let (most, least) = (node.duration_ms as f64, (node.duration_ms - outside) as f64);
    assert!(
        (least - TOLERANCE_MS..=most + TOLERANCE_MS).contains(&ms),
        "{name} took {ms} ms, not as {} in\n{tree}",
        node.signature
    );
}

/// The milliseconds of the request that are in none of its functions.
fn notes(tree: &AnalysedTree) -> i64 {
    tree.children(tree.root()).filter(|child| is_note(child)).map(|note| note.duration_ms).sum()
}

/// The tree of an order, in full.
#[track_caller]
pub fn assert_order(tree: &AnalysedTree) {
    assert_eq!(tree.root().signature, "GET:/orders/{id}");
    let order = tree.child(tree.root(), "order");
    for (function, awaited) in UPSTREAM {
        let parent = if function == "stream_answer" { tree.root() } else { order };
        let node = tree.child(parent, function);
        tree.child(node, awaited);
        // On loopback it is seldom waited for.
        let expected = |child: &&Node| child.is(awaited) || is_note(child) || child.is(CONNECT);
        let others = tree.children(node).filter(|child| !expected(child));
        assert_eq!(others.count(), 0, "below {function} in\n{tree}");
    }
    let functions = tree.nodes().iter().filter(|node| is_application(node));
    assert_eq!(functions.count(), 1 + UPSTREAM.len(), "functions of the example in\n{tree}");
}
