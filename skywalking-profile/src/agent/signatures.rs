//! Code signatures of a report: numbered, and chosen where several stacks may be the one.

use std::collections::HashMap;
use std::sync::Arc;

use crate::stack::Signatures;
use crate::timeline::SignatureId;

/// What several stacks have in common, and below it their next functions: `[load_order | load_customer]`. A leaf beside a
/// function is left out: as a rule it is the timer of a timeout. Of annotations a leaf is the stack that ends before others.
pub(super) fn one_of(mut stacks: Vec<Signatures>) -> Signatures {
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
pub(super) fn function(signature: &str) -> &str {
    let path = signature.split_once(" @ ").map_or(signature, |(path, _)| path);
    path.rsplit_once("::").map_or(path, |(_, function)| function)
}

/// Code signatures and their numbers, for one report.
#[derive(Default)]
pub(super) struct SignatureTable {
    ids: HashMap<Arc<str>, SignatureId>,
    pub(super) texts: Vec<Arc<str>>,
}

impl SignatureTable {
    pub(super) fn id(&mut self, text: &str) -> SignatureId {
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
