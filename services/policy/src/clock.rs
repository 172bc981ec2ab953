//! The instant at which something is judged, and whether it may be believed.
//!
//! Never reads a clock: whoever has one passes the moment in.

/// An instant of the appliance's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Seconds since 1970.
    pub now: i64,
    /// Whether windows may be judged by it. False: whatever has a window is denied. What a revision says of the
    /// hardware clock is in here already.
    pub trusted: bool,
}

impl Moment {
    pub fn trusted(now: i64) -> Self {
        Self { now, trusted: true }
    }

    pub fn untrusted(now: i64) -> Self {
        Self {
            now,
            trusted: false,
        }
    }
}
