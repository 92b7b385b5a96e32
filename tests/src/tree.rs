//! The tree of code signatures that the OAP computes from a segment's snapshots.

use std::fmt;

use serde_json::Value;

use crate::profile::{list, number, text};

/// One tree of an analysis.
#[derive(Debug, Clone)]
pub struct AnalysedTree {
    nodes: Vec<Node>,
}

/// One code signature under one parent.
#[derive(Debug, Clone)]
pub struct Node {
    id: String,
    parent_id: String,
    /// The signature as the agent sent it: `shop::db::load_order @ orders.rs:42`.
    pub signature: String,
    /// Milliseconds, children included.
    pub duration_ms: i64,
    /// Milliseconds, children excluded.
    pub self_duration_ms: i64,
    /// The number of snapshots.
    pub count: i64,
}

impl AnalysedTree {
    pub(crate) fn parse(value: &Value) -> Self {
        Self { nodes: list(value, "elements", Node::parse) }
    }

    /// All nodes, parents before their children.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node that has no parent.
    #[track_caller]
    pub fn root(&self) -> &Node {
        self.only("root", self.roots())
    }

    /// The node of the function `name`, in full or the last part of its path; panics if there is not exactly one.
    #[track_caller]
    pub fn node(&self, name: &str) -> &Node {
        self.only(name, self.nodes.iter().filter(|node| node.is(name)))
    }

    /// The node of the function `name` directly below `parent`; panics if there is not exactly one.
    #[track_caller]
    pub fn child(&self, parent: &Node, name: &str) -> &Node {
        self.only(name, self.children(parent).filter(|node| node.is(name)))
    }

    /// The nodes directly below `parent`.
    pub fn children(&self, parent: &Node) -> impl Iterator<Item = &Node> {
        let parent_id = &parent.id;
        self.nodes.iter().filter(move |node| node.parent_id == *parent_id)
    }

    /// The node directly above `node`.
    pub fn parent(&self, node: &Node) -> Option<&Node> {
        self.nodes.iter().find(|parent| parent.id == node.parent_id)
    }

    fn roots(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| self.parent(node).is_none())
    }

    #[track_caller]
    fn only<'a>(&self, what: &str, mut nodes: impl Iterator<Item = &'a Node>) -> &'a Node {
        match (nodes.next(), nodes.next()) {
            (Some(node), None) => node,
            (found, _) => panic!("{} {what} in\n{self}", found.map_or("no", |_| "more than one")),
        }
    }

    fn write(&self, node: &Node, depth: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Node { duration_ms, self_duration_ms, count, .. } = node;
        let signature = &node.signature;
        writeln!(f, "{duration_ms:8} {self_duration_ms:8} {count:6}  {:indent$}{signature}", "", indent = 2 * depth)?;
        self.children(node).try_for_each(|child| self.write(child, depth + 1, f))
    }
}

impl fmt::Display for AnalysedTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "      ms  self ms  count")?;
        self.roots().try_for_each(|root| self.write(root, 0, f))
    }
}

impl Node {
    fn parse(value: &Value) -> Self {
        Self {
            id: text(value, "id"),
            parent_id: text(value, "parentId"),
            signature: text(value, "codeSignature"),
            duration_ms: number(value, "duration"),
            self_duration_ms: number(value, "durationChildExcluded"),
            count: number(value, "count"),
        }
    }

    /// The signature's function: `shop::db::load_order`.
    pub fn function(&self) -> &str {
        self.signature.split_once(" @ ").map_or(self.signature.as_str(), |(function, _)| function)
    }

    /// Where the function was awaited or called: `orders.rs:42`.
    pub fn location(&self) -> Option<&str> {
        self.signature.split_once(" @ ").map(|(_, location)| location)
    }

    /// Whether `name` is the function, in full or the last part of its path.
    pub fn is(&self, name: &str) -> bool {
        self.function().strip_suffix(name).is_some_and(|path| path.is_empty() || path.ends_with("::"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tree() -> AnalysedTree {
        let node = |id: i64, parent: i64, signature: &str, duration: i64, own: i64| {
            json!({
                "id": id.to_string(), "parentId": parent.to_string(), "codeSignature": signature,
                "duration": duration, "durationChildExcluded": own, "count": duration / 10,
            })
        };
        AnalysedTree::parse(&json!({ "elements": [
            node(1, 0, "POST:/", 90, 0),
            node(2, 1, "shop::order", 90, 20),
            node(3, 2, "shop::db::load @ main.rs:7", 60, 60),
            node(4, 2, "shop::reload @ main.rs:8", 10, 10),
        ] }))
    }

    #[test]
    fn nodes_are_found_by_function() {
        let tree = tree();
        assert_eq!(tree.root().signature, "POST:/");
        assert_eq!(tree.node("load").signature, "shop::db::load @ main.rs:7");
        assert_eq!(tree.node("db::load").location(), Some("main.rs:7"));
        assert_eq!(tree.node("shop::order").location(), None);
        assert_eq!(tree.child(tree.node("order"), "reload").duration_ms, 10);
        assert_eq!(tree.parent(tree.node("load")).map(Node::function), Some("shop::order"));
    }

    #[test]
    #[should_panic(expected = "no db in")]
    fn a_module_is_no_function() {
        tree().node("db");
    }

    #[test]
    fn prints_indented() {
        let expected = "      ms  self ms  count
      90        0      9  POST:/
      90       20      9    shop::order
      60       60      6      shop::db::load @ main.rs:7
      10       10      1      shop::reload @ main.rs:8
";
        assert_eq!(tree().to_string(), expected);
    }
}
