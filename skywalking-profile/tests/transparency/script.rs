//! What opens the gates of a run: in which order, how many at once, from where.

use std::ops::Range;
use std::sync::Arc;
use std::thread;

use proptest::collection;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use tokio::task::yield_now;
use tokio::time::sleep;

use super::gate::Gates;
use super::support::ms;

/// Any steps, then each gate that is still shut.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    steps: Vec<Step>,
    rest: Vec<usize>,
}

#[derive(Clone, Debug)]
struct Step {
    acts: Vec<Act>,
    /// By a thread that ends before anything else happens.
    is_elsewhere: bool,
    then: Pause,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Open(usize),
    Nudge(usize),
}

/// What may happen before the next step.
#[derive(Clone, Copy, Debug)]
enum Pause {
    Nothing,
    /// What is ready is polled.
    Yield,
    /// All that can happen in so many milliseconds, which may fire timers.
    Idle(u64),
    /// The clock on the wall goes on: a wait becomes long enough to be shown.
    OnTheWall,
}

/// What more than so many gates do is told by the order in which they open.
const MOST: usize = 8;

/// Far enough for a gate that opens to be dealt with before the next one, by all that it wakes in turn.
const SETTLED: u64 = 1;

pub(crate) fn scripts(gates: usize) -> impl Strategy<Value = Script> {
    let rest = Just((0..gates).collect::<Vec<_>>()).prop_shuffle();
    (collection::vec(step(0..gates.max(1)), 0..=2 * gates.min(MOST)), rest)
        .prop_map(|(steps, rest)| Script { steps, rest })
}

/// Where several gates that are open at once would make chance decide.
pub(crate) fn one_by_one(gates: usize) -> impl Strategy<Value = Script> {
    let rest = Just((0..gates).collect::<Vec<_>>()).prop_shuffle();
    rest.prop_map(|rest| Script { steps: Vec::new(), rest })
}

fn step(gates: Range<usize>) -> impl Strategy<Value = Step> {
    let act = prop_oneof![3 => gates.clone().prop_map(Act::Open), 1 => gates.prop_map(Act::Nudge)];
    let pause = prop_oneof![
        10 => Just(Pause::Nothing),
        10 => Just(Pause::Yield),
        10 => (1..20_u64).prop_map(Pause::Idle),
        1 => Just(Pause::OnTheWall),
    ];
    let step = (collection::vec(act, 1..4), any::<bool>(), pause);
    step.prop_map(|(acts, is_elsewhere, then)| Step { acts, is_elsewhere, then })
}

impl Script {
    pub(crate) async fn play(self, gates: Arc<Gates>) {
        for Step { acts, is_elsewhere, then } in self.steps {
            let act = || acts.iter().for_each(|act| act.on(&gates));
            if is_elsewhere {
                thread::scope(|scope| scope.spawn(act).join().expect("no panic"))
            } else {
                act()
            }
            match then {
                Pause::Nothing => {}
                Pause::Yield => yield_now().await,
                Pause::Idle(time) => sleep(ms(time)).await,
                Pause::OnTheWall => {
                    yield_now().await;
                    thread::sleep(ms(2));
                }
            }
        }
        for gate in self.rest {
            if !gates.is_open(gate) {
                gates.open(gate);
                sleep(ms(SETTLED)).await;
            }
        }
    }
}

impl Act {
    fn on(self, gates: &Gates) {
        match self {
            Self::Open(gate) => gates.open(gate),
            Self::Nudge(gate) => gates.nudge(gate),
        }
    }
}
