//! The division of what random programs wait for, against what they did.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::agent::lines::{Lines, Seen, Woken};

/// What a strand awaits. Sites are code addresses.
#[derive(Clone, Debug)]
enum Program {
    /// For so many microseconds.
    Sleep {
        site: u64,
        us: u64,
    },
    Sequence(Vec<Self>),
    /// Arms with code of their own, as in `join!`, or of one function, as in `join_all`.
    Join {
        site: u64,
        arms: Vec<Self>,
        are_alike: bool,
    },
    Select {
        site: u64,
        arms: Vec<Self>,
    },
}

/// A [`Program`] that runs.
enum Running {
    Sleep { line: Option<u64>, site: u64, us: u64, until: u64 },
    Sequence(Vec<Self>),
    Join { site: u64, arms: Vec<Self>, are_alike: bool },
    Select { site: u64, arms: Vec<Self> },
    Done,
}

/// Leaves that registered in one poll: line, stack, and when it will wake.
type Registered = Vec<(u64, Vec<u64>, u64)>;

impl Running {
    fn new(program: &Program) -> Self {
        let all = |programs: &[Program]| programs.iter().map(Self::new).collect();
        match program {
            Program::Sleep { site, us } => Self::Sleep { line: None, site: *site, us: *us, until: 0 },
            Program::Sequence(steps) => Self::Sequence(all(steps)),
            Program::Join { site, arms, are_alike } => {
                Self::Join { site: *site, arms: all(arms), are_alike: *are_alike }
            }
            Program::Select { site, arms } => Self::Select { site: *site, arms: all(arms) },
        }
    }

    /// Whether it is done by `now`.
    fn poll(&mut self, now: u64, stack: &[u64], lines: &mut u64, registered: &mut Registered) -> bool {
        let is_done = match self {
            Self::Done => return true,
            Self::Sleep { line, site, us, until } => {
                let line = *line.get_or_insert_with(|| {
                    *lines += 1;
                    *until = now + *us;
                    *lines
                });
                let is_done = now >= *until;
                if !is_done {
                    registered.push((line, [stack, &[*site]].concat(), *until));
                }
                is_done
            }
            Self::Sequence(steps) => loop {
                let Some(step) = steps.first_mut() else { break true };
                if !step.poll(now, stack, lines, registered) {
                    break false;
                }
                steps.remove(0);
            },
            Self::Join { site, arms, are_alike } => {
                let mut is_done = true;
                for (i, arm) in (1..).zip(arms) {
                    let call = *site * 100 + if *are_alike { 0 } else { i };
                    is_done &= arm.poll(now, &[stack, &[call]].concat(), lines, registered);
                }
                is_done
            }
            Self::Select { site, arms } => {
                let before = registered.len();
                let done = (1..).zip(arms).find_map(|(i, arm)| {
                    arm.poll(now, &[stack, &[*site * 100 + i]].concat(), lines, registered).then_some(i)
                });
                if done.is_some() {
                    // The others are dropped.
                    registered.truncate(before);
                }
                done.is_some()
            }
        };
        if is_done {
            *self = Self::Done;
        }
        is_done
    }
}

/// What is known of a strand that ran a program.
struct Observed {
    lines: Lines,
    waits: Vec<Wait>,
    end: u64,
}

fn run(program: &Program) -> Observed {
    let (mut running, mut lines, mut waits, mut now, mut line) =
        (Running::new(program), Lines::default(), Vec::new(), 0, 0);
    loop {
        let mut registered = Vec::new();
        if running.poll(now, &[1], &mut line, &mut registered) {
            return Observed { lines, waits, end: now };
        }
        let to = registered.iter().map(|(.., until)| *until).min().expect("something is awaited");
        let seen = |(line, stack, until): (u64, Vec<u64>, u64)| Seen {
            line,
            addresses: Some(stack.into()),
            woken: (until <= to).then_some(Woken { at: until, by: None }),
            has_yielded: false,
        };
        lines.wait(now, to, registered.into_iter().map(seen).collect());
        waits.push(Wait { from: now, to, follows: true });
        now = to;
    }
}

/// A stretch that was waited at a site.
type Stretch = (u64, u64, u64);

/// What a program does from `start` on.
#[derive(Clone, Debug, Default)]
struct Truth {
    path: Vec<Stretch>,
    /// Of arms of joins that others were waited for.
    beside: Vec<Vec<Stretch>>,
    end: u64,
}

fn truth(program: &Program, start: u64) -> Truth {
    match program {
        Program::Sleep { site, us } => {
            Truth { path: vec![(start, start + us, *site)], beside: Vec::new(), end: start + us }
        }
        Program::Sequence(steps) => {
            let begin = Truth { end: start, ..Truth::default() };
            steps.iter().fold(begin, |mut so_far, step| {
                let step = truth(step, so_far.end);
                so_far.path.extend(step.path);
                so_far.beside.extend(step.beside);
                Truth { end: step.end, ..so_far }
            })
        }
        Program::Join { arms, .. } => {
            let mut arms: Vec<Truth> = arms.iter().map(|arm| truth(arm, start)).collect();
            arms.sort_by_key(|arm| arm.end);
            let mut last = arms.pop().expect("an arm");
            for arm in arms {
                last.beside.push(arm.path);
                last.beside.extend(arm.beside);
            }
            last
        }
        // What losers did is not told here.
        Program::Select { arms, .. } => {
            arms.iter().map(|arm| truth(arm, start)).min_by_key(|arm| arm.end).expect("an arm")
        }
    }
}

fn has_select(program: &Program) -> bool {
    match program {
        Program::Sleep { .. } => false,
        Program::Select { .. } => true,
        Program::Sequence(programs) | Program::Join { arms: programs, .. } => programs.iter().any(has_select),
    }
}

/// With each a length of its own, as a rule.
fn programs(lengths_us: impl Strategy<Value = u64> + Clone + 'static) -> impl Strategy<Value = Program> {
    let sites = 10..10_000_u64;
    let sleep = (sites.clone(), lengths_us).prop_map(|(site, us)| Program::Sleep { site, us });
    sleep.prop_recursive(4, 30, 4, move |program| {
        let arms = vec(program.clone(), 1..4);
        prop_oneof![
            vec(program, 1..4).prop_map(Program::Sequence),
            (sites.clone(), arms.clone(), any::<bool>()).prop_map(|(site, arms, are_alike)| Program::Join {
                site,
                arms,
                are_alike
            }),
            (sites.clone(), arms).prop_map(|(site, arms)| Program::Select { site, arms }),
        ]
    })
}

fn divided(observed: &Observed) -> (Vec<&Piece>, Division) {
    let pieces = observed.lines.pieces();
    let division = divide(&pieces, &natures(&pieces), &observed.waits, true, &mut |_, _| false);
    (pieces, division)
}

fn site(piece: &Piece) -> u64 {
    *piece.addresses.as_ref().and_then(|stack| stack.last()).expect("a stack")
}

/// Neighbours at one site are one.
fn joined(stretches: impl IntoIterator<Item = Stretch>) -> Vec<Stretch> {
    let mut joined: Vec<Stretch> = Vec::new();
    for (from, to, site) in stretches {
        match joined.last_mut() {
            Some(last) if last.1 == from && last.2 == site => last.1 = to,
            _ => joined.push((from, to, site)),
        }
    }
    joined
}

fn stretches(pieces: &[&Piece], branch: &[usize]) -> Vec<Stretch> {
    joined(branch.iter().map(|&piece| (pieces[piece].from, pieces[piece].to, site(pieces[piece]))))
}

proptest! {
    #[test]
    fn the_path_is_what_was_waited_for(program in programs(1_000..100_000_u64)) {
        let (observed, truth) = (run(&program), truth(&program, 0));
        prop_assert_eq!(observed.end, truth.end);
        let (pieces, division) = divided(&observed);
        // Of leaves that wake at one instant each may be the one.
        let mut wakes: Vec<u64> = pieces.iter().filter_map(|piece| Some(piece.woken?.at)).collect();
        wakes.sort_unstable();
        prop_assume!(wakes.windows(2).all(|pair| pair[0] < pair[1]));
        let mut path = Vec::new();
        for (wait, here) in observed.waits.iter().zip(&division.path) {
            prop_assert_eq!(here.len(), 1, "one leaf in each wait");
            path.push((wait.from, wait.to, site(pieces[here[0]])));
        }
        prop_assert_eq!(joined(path), joined(truth.path));
        let mut beside: Vec<_> = division.beside.iter().map(|branch| stretches(&pieces, branch)).collect();
        let mut expected: Vec<_> = truth.beside.into_iter().map(joined).collect();
        beside.sort();
        expected.sort();
        if has_select(&program) {
            // Losers that did something are beside, too.
            for branch in expected {
                prop_assert!(beside.contains(&branch), "{:?} in {:?}", branch, beside);
            }
        } else {
            prop_assert_eq!(beside, expected);
            prop_assert!(division.losers.is_empty());
        }
    }

    /// Where many leaves wake at once, who was waited for is anybody's guess; but all of the time is somebody's, once.
    #[test]
    fn every_wait_is_on_the_path_once(program in programs((1..4_u64).prop_map(|ms| ms * 1_000))) {
        let observed = run(&program);
        let (pieces, division) = divided(&observed);
        for (wait, here) in observed.waits.iter().zip(&division.path) {
            prop_assert_eq!(here.len(), 1);
            let piece = pieces[here[0]];
            prop_assert!(piece.from <= wait.from && wait.to <= piece.to);
        }
        let mut seen = vec![0; pieces.len()];
        for branch in division.beside.iter().chain(&division.losers) {
            prop_assert!(branch.windows(2).all(|pair| pieces[pair[0]].to <= pieces[pair[1]].from), "in turn");
            branch.iter().for_each(|&piece| seen[piece] += 1);
        }
        division.path.iter().for_each(|here| seen[here[0]] = 1.max(seen[here[0]]));
        prop_assert!(seen.iter().all(|times| *times == 1), "each leaf is somewhere: {:?}", seen);
    }

    #[test]
    fn what_is_pending_in_the_end_is_shown(program in programs(1_000..100_000_u64), cut in 0.0..1.0_f64) {
        let observed = run(&program);
        let last = (observed.waits.len() as f64 * cut) as usize;
        let waits = &observed.waits[..=last.min(observed.waits.len() - 1)];
        let end = waits.last().map_or(0, |wait| wait.to);
        let cut_off = |piece: &&Piece| Piece {
            to: piece.to.min(end),
            woken: piece.woken.filter(|woken| woken.at < end),
            ..(*piece).clone()
        };
        let pieces: Vec<Piece> = observed.lines.pieces().iter().filter(|piece| piece.from < end).map(cut_off).collect();
        let pieces: Vec<&Piece> = pieces.iter().collect();
        let division = divide(&pieces, &natures(&pieces), waits, false, &mut |_, _| false);
        let pending: Vec<usize> = (0..pieces.len()).filter(|&piece| pieces[piece].to == end).collect();
        let shown = division.path.last().cloned().unwrap_or_default();
        prop_assert_eq!(&shown, &pending, "all that was pending in the last wait");
        if pending.len() > 1 {
            let beside: Vec<usize> = division.beside.concat();
            prop_assert!(pending.iter().all(|piece| beside.contains(piece)), "each of them alone");
        }
    }
}

fn piece(line: u64, from: u64, to: u64, stack: &[u64], woken: bool) -> Piece {
    let woken = woken.then_some(Woken { at: to, by: None });
    Piece::new((from, to), line, stack, woken)
}

/// As if a site were a place.
fn natures(pieces: &[&Piece]) -> Vec<Nature> {
    let nature = |piece: &&Piece| Nature {
        is_awaited: true,
        place: site(piece) as usize,
        yields: false,
        is_timer: false,
        begins_anew: false,
    };
    pieces.iter().map(nature).collect()
}

fn waits<const N: usize>(edges: [u64; N]) -> Vec<Wait> {
    edges.windows(2).map(|edge| Wait { from: edge[0], to: edge[1], follows: true }).collect()
}

#[test]
fn a_loser_that_is_awaited_later_is_on_the_path_from_then_on() {
    let pieces = [piece(1, 0, 30, &[1, 2], true), piece(2, 0, 30, &[1, 3], false), piece(2, 30, 80, &[4], true)];
    let division =
        divide(&pieces.each_ref(), &natures(&pieces.each_ref()), &waits([0, 30, 80]), true, &mut |_, _| false);
    assert_eq!((division.path, division.beside, division.losers), (vec![vec![0], vec![2]], vec![], vec![vec![1]]));
}

#[test]
fn a_leaf_that_begins_anew_is_the_same_if_it_is_at_the_same_place() {
    let pieces = [piece(1, 0, 30, &[1, 2], true), piece(2, 0, 30, &[1, 3], false), piece(3, 30, 80, &[1, 3], true)];
    let mut natures = natures(&pieces.each_ref());
    natures[1].begins_anew = true;
    let division = divide(&pieces.each_ref(), &natures, &waits([0, 30, 80]), true, &mut |_, _| false);
    assert_eq!((division.path, division.beside), (vec![vec![1], vec![2]], vec![vec![0]]));
}

#[test]
fn a_stale_leaf_is_neither_on_the_path_nor_beside_it() {
    let pieces = [piece(1, 0, 30, &[1, 2], true), piece(2, 0, 80, &[1, 3], true)];
    let mut natures = natures(&pieces.each_ref());
    natures[0].is_awaited = false;
    let division = divide(&pieces.each_ref(), &natures, &waits([0, 30, 80]), true, &mut |_, _| false);
    assert_eq!((division.path, division.beside, division.losers), (vec![vec![1], vec![1]], vec![], vec![]));
}

#[test]
fn nothing_goes_back_beyond_a_pause() {
    let pieces = [piece(1, 0, 30, &[1, 2], true), piece(2, 0, 30, &[1, 3], false), piece(3, 40, 50, &[1, 3], true)];
    let waits = [Wait { from: 0, to: 30, follows: false }, Wait { from: 40, to: 50, follows: false }];
    let division = divide(&pieces.each_ref(), &natures(&pieces.each_ref()), &waits, true, &mut |_, _| false);
    assert_eq!(division.path, [vec![0], vec![2]]);
}

#[test]
fn a_wait_without_a_leaf_is_nobodys() {
    let division = divide(&[], &[], &waits([0, 10]), true, &mut |_, _| false);
    assert_eq!(division.path, [vec![]]);
}

#[test]
fn each_round_of_a_select_belongs_to_its_winner() {
    // Messages, and what ends the loop.
    let pieces = [
        piece(1, 0, 10, &[1, 2], true),
        piece(2, 0, 30, &[1, 3], true),
        piece(4, 10, 20, &[1, 2], true),
        piece(5, 20, 30, &[1, 2], false),
    ];
    let natures = natures(&pieces.each_ref());
    let division =
        |are_rivals| divide(&pieces.each_ref(), &natures, &waits([0, 10, 20, 30]), true, &mut |_, _| are_rivals);
    let (select, join) = (division(true), division(false));
    assert_eq!((select.path, select.beside), (vec![vec![0], vec![2], vec![1]], vec![]));
    assert_eq!((join.path, join.beside), (vec![vec![1]; 3], vec![vec![0, 2, 3]]));
}

#[test]
fn an_arm_of_a_select_that_goes_on_has_not_won_yet() {
    let pieces =
        [piece(1, 0, 10, &[1, 2, 5], true), piece(2, 0, 30, &[1, 3], true), piece(3, 10, 30, &[1, 2, 6], false)];
    let division =
        divide(&pieces.each_ref(), &natures(&pieces.each_ref()), &waits([0, 10, 30]), true, &mut |_, _| true);
    assert_eq!((division.path, division.beside), (vec![vec![1]; 2], vec![vec![0, 2]]));
}

#[test]
fn of_leaves_that_woke_together_a_join_waits_for_the_last_and_a_select_for_the_first() {
    let late =
        |line, at, stack: &[u64]| Piece { woken: Some(Woken { at, by: None }), ..piece(line, 0, 30, stack, true) };
    let pieces = [late(1, 20, &[1, 2]), late(2, 10, &[1, 3]), piece(3, 30, 40, &[4], true)];
    let natures = natures(&pieces.each_ref());
    for waits in [&waits([0, 30, 40])[..], &waits([0, 30])] {
        let division = |are_rivals| divide(&pieces.each_ref(), &natures, waits, true, &mut |_, _| are_rivals);
        assert_eq!((&division(false).path[0], &division(true).path[0]), (&vec![0], &vec![1]));
    }
}

#[test]
fn a_join_within_a_select_has_not_won_while_one_of_its_arms_is_pending() {
    let pieces =
        [piece(1, 0, 10, &[1, 2, 5], true), piece(2, 0, 30, &[1, 2, 6], false), piece(3, 0, 30, &[1, 3], true)];
    let division =
        divide(&pieces.each_ref(), &natures(&pieces.each_ref()), &waits([0, 10, 30]), true, &mut |_, _| true);
    assert_eq!((division.path, division.beside, division.losers), (vec![vec![2]; 2], vec![vec![0]], vec![vec![1]]));
}

#[test]
fn the_timer_of_a_timeout_is_not_waited_for() {
    let pieces = [piece(1, 0, 10, &[1, 2], false), piece(2, 0, 10, &[1, 3], false)];
    let mut natures = natures(&pieces.each_ref());
    natures[1].is_timer = true;
    let division = divide(&pieces.each_ref(), &natures, &waits([0, 10]), false, &mut |_, _| false);
    assert_eq!((division.path, division.beside), (vec![vec![0]], vec![]));
}
