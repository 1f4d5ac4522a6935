//! The wire format of protobuf: fields of a message, one after the other.

use super::{Decoded, Error};

/// A field's value as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wire<'a> {
    /// Whole numbers and booleans.
    Varint(u64),
    /// Doubles.
    Fixed64(u64),
    /// Strings, bytes and messages.
    Bytes(&'a [u8]),
    /// Floats; no Kubernetes type has one.
    Fixed32,
}

impl<'a> Wire<'a> {
    /// The number, or the error of field `at`.
    pub(super) fn varint(self, at: u32) -> Decoded<u64> {
        if let Self::Varint(n) = self { Ok(n) } else { Err(Error::WireType(at)) }
    }

    /// The eight bytes, or the error of field `at`.
    pub(super) fn fixed64(self, at: u32) -> Decoded<u64> {
        if let Self::Fixed64(n) = self { Ok(n) } else { Err(Error::WireType(at)) }
    }

    /// The bytes, or the error of field `at`.
    pub(super) fn bytes(self, at: u32) -> Decoded<&'a [u8]> {
        if let Self::Bytes(b) = self { Ok(b) } else { Err(Error::WireType(at)) }
    }
}

/// Reads fields off a message's bytes.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next field's number and value; `None` at the end.
    pub(super) fn next(&mut self) -> Decoded<Option<(u32, Wire<'a>)>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| Error::Truncated)?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| Error::Truncated)?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Error::Truncated)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            _ => return Err(Error::WireType(number)),
        };
        Ok(Some((number, wire)))
    }

    fn take(&mut self, length: usize) -> Decoded<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Error::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    /// Seven bits a byte, the lowest first; at most ten bytes.
    fn varint(&mut self) -> Decoded<u64> {
        let mut number = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Error::Truncated)
    }
}
