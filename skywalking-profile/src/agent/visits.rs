//! From a request's stretches to visits: stacks chosen, named, and numbered.

use std::collections::HashMap;
use std::sync::Arc;

use super::following::{Following, What};
use super::stacks::{Addresses, Stacks};
use crate::request::Pause;
use crate::stack::{Leaf, Signatures, UNKNOWN};
use crate::timeline::{SignatureId, Stack, Visit};

/// The visits of one request, and the signatures that their stacks consist of, by their ids.
pub(super) struct Visits {
    pub(super) list: Vec<Visit>,
    pub(super) root: SignatureId,
    pub(super) signatures: Vec<Arc<str>>,
}

/// The visits of a request whose root frame is `root`.
pub(super) fn visits(following: &Following, root: &str, stacks: &mut Stacks) -> Visits {
    let mut table = SignatureTable::default();
    table.id("[running]");
    table.id("[scheduled: waiting for a worker]");
    let root = table.id(root);
    let awaited = awaited(following, stacks);

    let mut named = HashMap::<(&[Addresses], bool), Stack>::new();
    let mut ran = HashMap::<Addresses, Option<Stack>>::new();
    let mut stack_of = |what: &What, awaited| {
        let mut note = |text| Some(Arc::from([root, table.id(text)]));
        match what {
            What::Ran(None) => None,
            // Without a frame that has a name, it is known no better.
            What::Ran(Some(addresses)) => ran
                .entry(Arc::clone(addresses))
                .or_insert_with(|| {
                    let signatures = stacks.signatures(addresses, Leaf::Running);
                    let is_named = signatures.iter().any(|frame| frame != UNKNOWN);
                    let frames = signatures.iter().map(|frame| table.id(frame));
                    is_named.then(|| [root].into_iter().chain(frames).collect())
                })
                .clone(),
            What::Paused(Pause::FirstPoll) => note("[waiting for the first poll]"),
            What::Paused(Pause::Peer) => note("[waiting for the client]"),
            What::Awaited(_) | What::Scheduled(_) => {
                let was_woken = matches!(what, What::Scheduled(_));
                Some(Arc::clone(named.entry((awaited, was_woken)).or_insert_with(|| {
                    let is_scheduled = was_woken || awaited.iter().any(|stack| stacks.is_deferred(stack));
                    let mut signatures =
                        one_of(awaited.iter().map(|stack| stacks.signatures(stack, Leaf::Awaited)).collect());
                    if signatures.is_empty() {
                        signatures.push("[pending]".to_owned());
                    }
                    let awaited = signatures.iter().map(|frame| table.id(frame));
                    [root].into_iter().chain(awaited).chain(is_scheduled.then_some(SignatureId::SCHEDULED)).collect()
                })))
            }
        }
    };
    let since = |at: u64| at.saturating_sub(following.started.at);
    let list = following.stretches.iter().zip(&awaited).map(|(stretch, awaited)| Visit {
        from_ns: since(stretch.from),
        to_ns: since(stretch.to),
        stack: stack_of(&stretch.what, awaited),
    });
    Visits { list: list.collect(), root, signatures: table.texts }
}

/// The stacks of the leaves that each stretch may have waited for. Where no leaf woke the request, it goes on to wait: then
/// the leaf is that of the wait after it, if that is one of them.
fn awaited(following: &Following, stacks: &mut Stacks) -> Vec<Vec<Addresses>> {
    let mut next: Option<Addresses> = None;
    let mut awaited = Vec::with_capacity(following.stretches.len());
    for stretch in following.stretches.iter().rev() {
        let mut leaves = match &stretch.what {
            What::Awaited(awaited) | What::Scheduled(awaited) => {
                awaited.stacks(|older, branch| stacks.is_stale(older, branch))
            }
            What::Ran(_) | What::Paused(_) => Vec::new(),
        };
        if let Some(i) = leaves.iter().position(|leaf| Some(*leaf) == next.as_ref()) {
            leaves = vec![leaves[i]];
        }
        match (&stretch.what, &*leaves) {
            (What::Ran(_), _) => {}
            (_, [leaf]) => next = Some(Arc::clone(leaf)),
            (What::Awaited(_) | What::Scheduled(_) | What::Paused(_), _) => next = None,
        }
        awaited.push(leaves.into_iter().map(Arc::clone).collect());
    }
    awaited.reverse();
    awaited
}

/// What several stacks have in common, and below it their next functions: `[load_order | load_customer]`. A leaf beside a
/// function is left out: as a rule it is the timer of a timeout. Of annotations a leaf is the stack that ends before others.
fn one_of(mut stacks: Vec<Signatures>) -> Signatures {
    /// As long as a signature is.
    const LONGEST: usize = 80;
    let Some(longest) = stacks.iter().map(Vec::len).max() else { return Signatures::new() };
    let parts = (0..longest).find(|&i| stacks.iter().any(|stack| stack.get(i) != stacks[0].get(i)));
    let Some(parts) = parts else { return stacks.swap_remove(0) };
    let goes_on = |stack: &Signatures| stack.len() > parts;
    if !stacks.iter().all(goes_on) {
        stacks.retain(goes_on);
        return one_of(stacks);
    }
    let is_function = |stack: &Signatures| stack.len() > parts + 1;
    if stacks.iter().any(is_function) && !stacks.iter().all(is_function) {
        stacks.retain(is_function);
        return one_of(stacks);
    }
    let mut arms: Vec<&str> = stacks.iter().filter_map(|stack| stack.get(parts)).map(|arm| function(arm)).collect();
    arms.sort_unstable();
    arms.dedup();
    let arms = format!("[{}]", arms.join(" | "));
    let mut common = stacks[0][..parts].to_vec();
    common.push(if arms.chars().count() > LONGEST { "[one of several]".to_owned() } else { arms });
    common
}

/// The name alone of a signature's function.
fn function(signature: &str) -> &str {
    let path = signature.split_once(" @ ").map_or(signature, |(path, _)| path);
    path.rsplit_once("::").map_or(path, |(_, function)| function)
}

/// Code signatures and their numbers, for one report.
#[derive(Default)]
struct SignatureTable {
    ids: HashMap<Arc<str>, SignatureId>,
    texts: Vec<Arc<str>>,
}

impl SignatureTable {
    fn id(&mut self, text: &str) -> SignatureId {
        if let Some(id) = self.ids.get(text) {
            return *id;
        }
        let (id, text) = (SignatureId(self.texts.len() as u32), Arc::<str>::from(text));
        self.texts.push(Arc::clone(&text));
        self.ids.insert(text, id);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(signatures: &[&str]) -> Signatures {
        signatures.iter().map(|signature| (*signature).to_owned()).collect()
    }

    #[test]
    fn several_stacks_are_shown_as_what_they_share_and_what_comes_next() {
        let order = stack(&["shop::order", "shop::db::load_order @ main.rs:12", "Sleep @ db.rs:3"]);
        let customer = stack(&["shop::order", "shop::db::load_customer @ main.rs:13", "Sleep @ db.rs:9"]);
        assert_eq!(one_of(vec![]), stack(&[]));
        assert_eq!(one_of(vec![order.clone()]), order);
        assert_eq!(one_of(vec![order.clone(), order.clone()]), order);
        assert_eq!(one_of(vec![order, customer]), stack(&["shop::order", "[load_customer | load_order]"]));
    }

    #[test]
    fn the_timer_of_a_timeout_is_not_shown_beside_what_it_is_for() {
        let order = stack(&["shop::order", "shop::db::load_order @ main.rs:12", "Sleep @ db.rs:3"]);
        let within = stack(&["shop::order", "Sleep @ main.rs:12"]);
        assert_eq!(one_of(vec![stack(&["Sleep"]), order.clone(), within.clone()]), order);
        let marked = stack(&["shop::order"]);
        assert_eq!(one_of(vec![marked, stack(&["shop::order", "shop::load"])]), stack(&["shop::order", "shop::load"]));
        let receive = stack(&["shop::order", "tokio::sync::mpsc::Receiver::recv @ main.rs:13"]);
        assert_eq!(one_of(vec![within, receive]), stack(&["shop::order", "[Sleep | recv]"]));
    }

    #[test]
    fn what_would_be_too_long_is_not_listed() {
        let arm = |i: u32| stack(&[&format!("{}{i}", "x".repeat(40))]);
        assert_eq!(one_of(vec![arm(1), arm(2)]), ["[one of several]"]);
    }
}
