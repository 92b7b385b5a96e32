//! Computing for a given time.

/// Computes for this long in the function that says so; in a function of its own, that one would be seen to compute.
macro_rules! compute_for {
    ($time:expr) => {{
        let (time, start) = ($time, std::time::Instant::now());
        let mut number = 0x9e37_79b9_7f4a_7c15_u64;
        while start.elapsed() < time {
            // Marsaglia's xorshift: nothing that even an unoptimised build calls. Some tenths of a millisecond, so that
            // looking at the clock is next to nothing.
            let mut rounds = 100_000;
            while rounds > 0 {
                number ^= number << 13;
                number ^= number >> 7;
                number ^= number << 17;
                rounds -= 1;
            }
        }
        // Otherwise nothing need be computed.
        std::hint::black_box(number);
    }};
}

pub(crate) use compute_for;
