//! What a future notices of being followed: nothing, for it is polled as often, in the same order, and woken no less.
//! Gates that scripts open make up requests of all shapes.

mod compare;
mod gate;
mod joins;
mod random;
mod run;
mod script;
mod selects;
mod streams;
#[path = "../support/mod.rs"]
mod support;
mod sync;
mod tasks;
mod timers;
