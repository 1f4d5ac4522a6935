//! Frames (SPDY/3.1 draft, section 2.2 and 2.6): pure reading and writing.

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes before every frame.
pub const HEAD: usize = 8;
/// RST_STREAM: the stream is not taken.
pub const REFUSED_STREAM: u32 = 3;
/// GOAWAY: the connection ends as it should.
pub const GOAWAY_OK: u32 = 0;

const VERSION: u16 = 3;
const FLAG_FIN: u8 = 1;
const CONTROL: u32 = 1 << 31;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// The first eight bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// So many bytes of a stream follow, perhaps its last.
    Data { stream: u32, end: bool, length: usize },
    /// A control frame's payload follows.
    Control { version: u16, kind: u16, end: bool, length: usize },
}

/// A control frame. Header blocks are compressed, and all of them must be read in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control<'a> {
    /// A new stream.
    SynStream { stream: u32, end: bool, headers: &'a [u8] },
    /// More headers of a stream, or an answer to one of ours, of which there are none.
    Headers { stream: u32, end: bool, headers: &'a [u8] },
    /// A stream is broken off.
    Reset { stream: u32 },
    /// To be sent back.
    Ping { id: u32 },
    /// Nothing that concerns us: SETTINGS, WINDOW_UPDATE, GOAWAY, CREDENTIAL, or unknown.
    Other,
}

impl Head {
    pub fn parse(bytes: [u8; HEAD]) -> Self {
        let [a, b, c, d, flags, l0, l1, l2] = bytes;
        let first = u32::from_be_bytes([a, b, c, d]);
        let end = flags & FLAG_FIN != 0;
        let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        if first & CONTROL == 0 {
            return Self::Data { stream: first, end, length };
        }
        Self::Control { version: (first >> 16) as u16 & 0x7fff, kind: first as u16, end, length }
    }
}

impl<'a> Control<'a> {
    /// The payload of a control frame; none if it is cut short or of another version.
    pub fn parse(version: u16, kind: u16, end: bool, payload: &'a [u8]) -> Option<Self> {
        if version != VERSION {
            return None;
        }
        Some(match kind {
            SYN_STREAM => Self::SynStream { stream: word(payload)?, end, headers: payload.get(10..)? },
            SYN_REPLY | HEADERS => Self::Headers { stream: word(payload)?, end, headers: payload.get(4..)? },
            RST_STREAM => Self::Reset { stream: word(payload)? },
            PING => Self::Ping { id: u32::from_be_bytes(*payload.first_chunk()?) },
            _ => Self::Other,
        })
    }
}

/// A stream's number: 31 bits.
fn word(payload: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*payload.first_chunk()?) & !CONTROL)
}

/// The head of a data frame.
pub fn data(stream: u32, end: bool, length: usize) -> [u8; HEAD] {
    head(stream, end, length)
}

pub fn syn_reply(stream: u32, headers: &[u8]) -> Bytes {
    control(SYN_REPLY, &[&stream.to_be_bytes(), headers])
}

pub fn reset(stream: u32, status: u32) -> Bytes {
    control(RST_STREAM, &[&stream.to_be_bytes(), &status.to_be_bytes()])
}

pub fn ping(id: u32) -> Bytes {
    control(PING, &[&id.to_be_bytes()])
}

pub fn goaway(last_stream: u32, status: u32) -> Bytes {
    control(GOAWAY, &[&last_stream.to_be_bytes(), &status.to_be_bytes()])
}

fn control(kind: u16, parts: &[&[u8]]) -> Bytes {
    let length = parts.iter().map(|part| part.len()).sum();
    let mut frame = BytesMut::with_capacity(HEAD + length);
    frame.put_slice(&head(CONTROL | u32::from(VERSION) << 16 | u32::from(kind), false, length));
    parts.iter().for_each(|part| frame.put_slice(part));
    frame.freeze()
}

fn head(first: u32, end: bool, length: usize) -> [u8; HEAD] {
    let [a, b, c, d] = first.to_be_bytes();
    // Our frames are far below the 2^24 bytes that fit.
    let [_, l0, l1, l2] = (length as u32).to_be_bytes();
    [a, b, c, d, if end { FLAG_FIN } else { 0 }, l0, l1, l2]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_frame_panics(head: [u8; HEAD], payload in prop::collection::vec(any::<u8>(), 0..32)) {
            if let Head::Control { version, kind, end, .. } = Head::parse(head) {
                Control::parse(version, kind, end, &payload);
                Control::parse(VERSION, kind % 10, end, &payload);
            }
        }

        #[test]
        fn data_heads_are_read_as_written(stream in 0u32..CONTROL, end: bool, length in 0usize..1 << 24) {
            prop_assert_eq!(Head::parse(data(stream, end, length)), Head::Data { stream, end, length });
        }
    }

    #[test]
    fn control_frames_are_read_as_written() {
        let frame = ping(7);
        let (head, payload) = frame.split_first_chunk().unwrap();
        let Head::Control { version, kind, end, length } = Head::parse(*head) else { panic!() };
        assert_eq!(length, payload.len());
        assert_eq!(Control::parse(version, kind, end, payload), Some(Control::Ping { id: 7 }));
    }
}
