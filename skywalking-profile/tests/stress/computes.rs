//! What computes: functions of every shape that an unwinder meets. Each lasts about as long as it is told to.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime};

use crate::random::Random;

/// Who calls whom here. In optimised programs a call at a function's end is a jump: then it is the caller's caller that
/// calls.
pub(crate) const CALLS: &[(&str, &[&str])] = &[
    (
        "computes::anything",
        &[
            "computes::sorts",
            "computes::formats",
            "computes::hashes",
            "computes::allocates",
            "computes::descends",
            "computes::is_even",
            "computes::jumps",
            "computes::multiplies",
            "computes::has_a_large_frame",
            "computes::has_an_aligned_frame",
            "computes::adds_lanes",
            "computes::reads_clocks",
            "computes::dispatches",
            "computes::falls_and_is_caught",
        ],
    ),
    // Closures have their function's name.
    ("computes::sorts", &["computes::sorts", "computes::compares"]),
    ("computes::formats", &["computes::formats", "computes::Money::fmt"]),
    ("computes::adds", &["computes::adds"]),
    ("computes::hashes", &["computes::Key::hash", "computes::Key::eq"]),
    ("computes::allocates", &["computes::Chunk::drop"]),
    ("computes::descends", &["computes::descends", "computes::multiplies"]),
    ("computes::is_even", &["computes::is_odd", "computes::multiplies"]),
    ("computes::is_odd", &["computes::is_even", "computes::multiplies"]),
    ("computes::jumps", &["computes::multiplies"]),
    ("computes::has_a_large_frame", &["computes::multiplies"]),
    ("computes::has_an_aligned_frame", &["computes::adds_lanes", "computes::adds_lanes_at_once"]),
    ("computes::dispatches", &["computes::multiplies", "computes::adds", "computes::Multiplier::apply"]),
    ("computes::Multiplier::apply", &["computes::multiplies"]),
    ("computes::falls_and_is_caught", &["computes::falls_and_is_caught", "computes::falls"]),
    ("computes::falls", &["computes::falls", "computes::Guard::drop"]),
    ("computes::Guard::drop", &["computes::multiplies"]),
];

#[inline(never)]
pub(crate) fn anything(random: &mut Random) {
    let until = Until::after(Duration::from_micros(random.below(3_000)));
    match random.below(13) {
        0 => sorts(random, until),
        1 => formats(random, until),
        2 => hashes(random, until),
        3 => allocates(random, until),
        4 => drop(black_box(descends(random.below(60), until))),
        5 => drop(black_box(is_even(random.below(60), until))),
        6 => drop(black_box(jumps(random.below(60), until))),
        7 => drop(black_box(has_a_large_frame(until))),
        8 => drop(black_box(has_an_aligned_frame(until))),
        9 => reads_clocks(until),
        10 | 11 => dispatches(random, until),
        _ => falls_and_is_caught(random.below(20), until),
    }
    black_box(());
}

/// When to stop.
#[derive(Clone, Copy)]
pub(crate) struct Until(Instant);

impl Until {
    pub(crate) fn after(time: Duration) -> Self {
        Self(Instant::now() + time)
    }

    #[inline(always)]
    pub(crate) fn has_come(self) -> bool {
        Instant::now() >= self.0
    }
}

#[inline(never)]
fn sorts(random: &mut Random, until: Until) {
    while !until.has_come() {
        let mut words: Vec<_> = (0..100).map(|_| random.next().to_string()).collect();
        words.sort_by(|a, b| compares(a, b));
        black_box(words);
    }
}

#[inline(never)]
fn compares(a: &str, b: &str) -> std::cmp::Ordering {
    black_box(a.chars().rev().cmp(b.chars().rev()))
}

struct Money(u64);

impl fmt::Display for Money {
    #[inline(never)]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        black_box(write!(f, "{}.{:02} €", self.0 / 100, self.0 % 100))
    }
}

#[inline(never)]
fn formats(random: &mut Random, until: Until) {
    while !until.has_come() {
        let line =
            (0..50).fold(String::new(), |line, i| format!("{line}{i:>4}: {:>12}\n", Money(random.below(100_000))));
        black_box(line);
    }
}

#[derive(Clone)]
struct Key(String);

impl Hash for Key {
    #[inline(never)]
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
        black_box(());
    }
}

impl PartialEq for Key {
    #[inline(never)]
    fn eq(&self, other: &Self) -> bool {
        black_box(self.0 == other.0)
    }
}

impl Eq for Key {}

#[inline(never)]
fn hashes(random: &mut Random, until: Until) {
    while !until.has_come() {
        let mut counts = HashMap::new();
        for _ in 0..200 {
            *counts.entry(Key(format!("key {}", random.below(50)))).or_insert(0) += 1;
        }
        black_box(counts);
    }
}

struct Chunk(Vec<u8>);

impl Drop for Chunk {
    #[inline(never)]
    fn drop(&mut self) {
        self.0.fill(0);
        black_box(&self.0);
    }
}

/// Of all sizes, so that the allocator has to look, split, merge and ask the kernel.
#[inline(never)]
fn allocates(random: &mut Random, until: Until) {
    let mut held: Vec<Option<Chunk>> = (0..64).map(|_| None).collect();
    while !until.has_come() {
        for _ in 0..50 {
            let size = 1 << random.below(18);
            let slot = random.below(64) as usize;
            held[slot] = Some(Chunk(vec![1; size + random.below(100) as usize]));
            held[slot ^ 1] = None;
        }
    }
}

#[inline(never)]
fn descends(depth: u64, until: Until) -> u64 {
    let below = if depth > 0 { descends(depth - 1, until) } else { multiplies(depth, until) };
    black_box(below + depth)
}

#[inline(never)]
fn is_even(number: u64, until: Until) -> bool {
    let is = if number > 0 { is_odd(number - 1, until) } else { multiplies(number, until) != 1 };
    black_box(is)
}

#[inline(never)]
fn is_odd(number: u64, until: Until) -> bool {
    let is = if number > 0 { is_even(number - 1, until) } else { multiplies(number, until) == 1 };
    black_box(is)
}

/// Has nothing to do after its call.
#[inline(never)]
fn jumps(number: u64, until: Until) -> u64 {
    multiplies(number | 1, until)
}

/// Calls nothing but the clock.
#[inline(never)]
fn multiplies(mut number: u64, until: Until) -> u64 {
    while !until.has_come() {
        for _ in 0..1_000 {
            number = black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
    }
    number
}

#[inline(never)]
fn adds(number: u64, until: Until) -> u64 {
    let mut sum = number;
    while !until.has_come() {
        sum = (0..1_000).fold(sum, |sum, i| black_box(sum.wrapping_add(i)));
    }
    sum
}

#[inline(never)]
fn has_a_large_frame(until: Until) -> u64 {
    let mut frame = [0_u8; 20_000];
    black_box(&mut frame);
    let result = multiplies(7, until);
    black_box(&mut frame);
    result
}

/// Its alignment makes the compiler keep a frame pointer.
#[repr(align(64))]
struct Lanes([f32; 256]);

#[inline(never)]
fn has_an_aligned_frame(until: Until) -> f32 {
    let mut lanes = Lanes([1.5; 256]);
    black_box(&mut lanes);
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has these instructions.
        return black_box(unsafe { adds_lanes_at_once(&lanes, until) });
    }
    black_box(adds_lanes(&lanes, until))
}

#[inline(never)]
fn adds_lanes(lanes: &Lanes, until: Until) -> f32 {
    let mut sum = 0.0;
    while !until.has_come() {
        sum = lanes.0.iter().fold(sum, |sum, lane| black_box(sum + lane));
    }
    sum
}

#[cfg(target_arch = "x86_64")]
#[inline(never)]
#[target_feature(enable = "avx2")]
fn adds_lanes_at_once(lanes: &Lanes, until: Until) -> f32 {
    let mut sums = Lanes([0.0; 256]);
    while !until.has_come() {
        for (sum, lane) in sums.0.iter_mut().zip(&lanes.0) {
            *sum += lane;
        }
        black_box(&mut sums);
    }
    black_box(sums.0[7])
}

/// The kernel's code that is mapped into each process.
#[inline(never)]
fn reads_clocks(until: Until) {
    while !until.has_come() {
        for _ in 0..100 {
            black_box((Instant::now(), SystemTime::now()));
        }
    }
}

trait Apply {
    fn apply(&self, number: u64, until: Until) -> u64;
}

struct Multiplier;

impl Apply for Multiplier {
    #[inline(never)]
    fn apply(&self, number: u64, until: Until) -> u64 {
        black_box(multiplies(number, until))
    }
}

#[inline(never)]
fn dispatches(random: &mut Random, until: Until) {
    let functions: [fn(u64, Until) -> u64; 2] = [multiplies, adds];
    let objects: [Box<dyn Apply>; 1] = [Box::new(Multiplier)];
    let number = random.next();
    match random.below(3) as usize {
        2 => black_box(objects[black_box(0)].apply(number, until)),
        i => black_box(functions[black_box(i)](number, until)),
    };
}

thread_local! {
    /// Lets what unwinding runs last a while.
    static UNTIL: Cell<Option<Until>> = const { Cell::new(None) };
}

struct Guard;

impl Drop for Guard {
    #[inline(never)]
    fn drop(&mut self) {
        if let Some(until) = UNTIL.take() {
            black_box(multiplies(3, until));
        }
    }
}

#[inline(never)]
fn falls_and_is_caught(depth: u64, until: Until) {
    UNTIL.set(Some(until));
    let caught = catch_unwind(AssertUnwindSafe(|| falls(depth)));
    assert!(black_box(caught).is_err());
    while !until.has_come() {
        let caught = catch_unwind(AssertUnwindSafe(|| falls(depth)));
        assert!(black_box(caught).is_err());
    }
}

#[inline(never)]
pub(crate) fn falls(depth: u64) {
    let guard = Guard;
    if depth == 0 {
        panic!("as it should");
    }
    falls(depth - 1);
    drop(black_box(guard));
}
