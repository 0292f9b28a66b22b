//! The Unique Device Identifier of a product instance (R1).

use std::fmt;

/// The longest part of a UDI, and the longest entitlement tag, in bytes (contract 1.3).
pub const IDENTIFIER_BYTES_MAX: usize = 256;

/// PID and serial number: the identity of one product instance.
///
/// The derived order compares the PID first, then the serial, as bytes. Where the contract orders
/// UDIs by their written form, use [`Udi::cmp_written`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Udi {
    pub pid: String,
    pub serial: String,
}

impl Udi {
    pub fn new(pid: impl Into<String>, serial: impl Into<String>) -> Self {
        Udi { pid: pid.into(), serial: serial.into() }
    }

    /// The bytes of the written form `PID:SERIAL`, without building the string.
    fn written_bytes(&self) -> impl Iterator<Item = u8> + '_ {
        self.pid.bytes().chain(std::iter::once(b':')).chain(self.serial.bytes())
    }

    /// Compares the written forms `PID:SERIAL` as bytes (contract 3.3, ties).
    #[must_use]
    pub fn cmp_written(&self, other: &Udi) -> std::cmp::Ordering {
        self.written_bytes().cmp(other.written_bytes())
    }
}

impl fmt::Display for Udi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.pid, self.serial)
    }
}
