//! What is said inside the channel: frames, each a length (u32, little-endian) and so many bytes of postcard.
//!
//! Always true: reading a frame never panics, and reserves no memory for what a length claims and is not there, but for a table of
//! [`HEADERS_MAX`] headers. Numbers of requests (`id`) only ever grow on a connection.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{BODY_BYTES_MAX, Client, HEAD_BYTES_MAX, HEADERS_MAX, PeerError, Side};

/// The largest piece of a stream in one frame: small, so that other answers come in between.
pub(super) const PIECE_BYTES_MAX: usize = 16 * 1024;
/// The rest of a frame, which has no size of its own: numbers, and an address.
const EXTRA_BYTES: usize = 1_024;
pub(super) const FRAME_BYTES_MAX: usize = HEAD_BYTES_MAX + BODY_BYTES_MAX + EXTRA_BYTES;
const LENGTH_BYTES: usize = 4;
/// The whole of [`Frame::Here`]: a length, and which frame it is.
pub(super) const HERE_BYTES: usize = LENGTH_BYTES + 1;
/// What the lengths of a header's name and value take at most.
const HEADER_EXTRA_BYTES: usize = 8;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Frame<'a> {
    /// I am here, and had nothing else to say.
    Here,
    // --- from whoever asks
    #[serde(borrow)]
    Ask(Ask<'a>),
    /// So many more bytes of this stream may come.
    Credit {
        id: u64,
        bytes: u32,
    },
    /// Nobody listens to this answer any more.
    Leave {
        id: u64,
    },
    // --- from whoever answers
    Whole {
        id: u64,
        status: u16,
        #[serde(borrow)]
        headers: Headers<'a>,
        #[serde(borrow)]
        body: Block<'a>,
    },
    /// A stream begins: its pieces follow, then `End` or `Cut`.
    Head {
        id: u64,
        status: u16,
        #[serde(borrow)]
        headers: Headers<'a>,
    },
    Piece {
        id: u64,
        #[serde(borrow)]
        bytes: Block<'a>,
    },
    End {
        id: u64,
    },
    /// There will be no (more) answer, and it may have been executed.
    Cut {
        id: u64,
    },
    Elsewhere {
        id: u64,
        session: i64,
    },
    /// Put aside unread: not executed.
    Dropped {
        id: u64,
    },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Ask<'a> {
    pub id: u64,
    pub method: &'a str,
    pub target: &'a str,
    pub from: Option<Client>,
    pub side: Side,
    pub hops: u8,
    pub session: i64,
    pub patience_us: u64,
    #[serde(borrow)]
    pub headers: Headers<'a>,
    #[serde(borrow)]
    pub body: Block<'a>,
}

/// Bytes that are copied as a block, not one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct Block<'a>(#[serde(borrow)] pub &'a [u8]);

impl Serialize for Block<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(self.0)
    }
}

/// Names and values: lent on the way out, owned on the way in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Headers<'a>(pub Cow<'a, [(String, Vec<u8>)]>);

impl<'a> Headers<'a> {
    pub(super) fn lent(headers: &'a [(String, Vec<u8>)]) -> Headers<'a> {
        Headers(Cow::Borrowed(headers))
    }
}

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().map(|(name, value)| (name.as_str(), Block(value))))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Headers<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_seq(OwnedHeaders).map(|headers| Headers(Cow::Owned(headers)))
    }
}

struct OwnedHeaders;

impl<'de> Visitor<'de> for OwnedHeaders {
    type Value = Vec<(String, Vec<u8>)>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("headers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        // How many there are is a claim: it reserves no more than there can be.
        let claimed = seq.size_hint().unwrap_or_default();
        if claimed > HEADERS_MAX {
            return Err(A::Error::invalid_length(claimed, &self));
        }
        let mut headers = Vec::with_capacity(claimed);
        while let Some((name, value)) = seq.next_element::<(&str, Block)>()? {
            headers.push((name.to_owned(), value.0.to_vec()));
        }
        Ok(headers)
    }
}

/// Whether a head, with `first` bytes before its headers, fits into a frame.
pub(super) fn head_fits(first: usize, headers: &[(String, Vec<u8>)]) -> bool {
    let bytes = headers.iter().map(|(name, value)| name.len() + value.len() + HEADER_EXTRA_BYTES);
    headers.len() <= HEADERS_MAX && bytes.fold(first, usize::saturating_add) <= HEAD_BYTES_MAX
}

impl<'a> Frame<'a> {
    /// Appends itself to `out`; what is too large leaves nothing there.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<(), PeerError> {
        let at = out.len();
        out.extend_from_slice(&[0; LENGTH_BYTES]);
        let written = postcard::to_io(self, &mut *out).map(|_| ());
        let bytes = out.len() - at - LENGTH_BYTES;
        let length = u32::try_from(bytes).ok().filter(|_| bytes <= FRAME_BYTES_MAX && written.is_ok());
        let Some(length) = length else {
            out.truncate(at);
            return Err(PeerError::TooLarge { bytes });
        };
        out[at..at + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        Ok(())
    }

    /// The first frame of `plain` and what is behind it; `None` while it is not whole.
    pub(super) fn first(plain: &'a [u8]) -> Result<Option<(Frame<'a>, &'a [u8])>, PeerError> {
        let Some((length, behind)) = plain.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let bytes = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if bytes > FRAME_BYTES_MAX {
            return Err(PeerError::TooLarge { bytes });
        }
        let Some((frame, behind)) = behind.split_at_checked(bytes) else { return Ok(None) };
        Ok(Some((Frame::decode(frame)?, behind)))
    }

    fn decode(bytes: &'a [u8]) -> Result<Frame<'a>, PeerError> {
        let (frame, rest) = postcard::take_from_bytes::<Frame>(bytes)
            .map_err(|_| PeerError::Malformed("it cannot be read"))?;
        if !rest.is_empty() {
            return Err(PeerError::Malformed("something stands behind it"));
        }
        match &frame {
            Frame::Ask(Ask { body, .. }) | Frame::Whole { body, .. } if body.0.len() > BODY_BYTES_MAX => {
                Err(PeerError::Malformed("its body is too large"))
            }
            Frame::Piece { bytes, .. } if bytes.0.len() > PIECE_BYTES_MAX => {
                Err(PeerError::Malformed("its piece is too large"))
            }
            _ => Ok(frame),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers() -> Vec<(String, Vec<u8>)> {
        vec![("accept".into(), b"*/*".to_vec()), ("x-odd".into(), vec![0xff, 0])]
    }

    fn all(headers: &[(String, Vec<u8>)]) -> Vec<Frame<'_>> {
        let ask = |from: Option<&str>, side, body| {
            Frame::Ask(Ask {
                id: 300,
                method: "POST",
                target: "/v1/orders?a=b",
                from: from.map(|from| Client { address: from.parse().unwrap(), is_exempt: from == "::1" }),
                side,
                hops: 1,
                session: -4,
                patience_us: 5_000_000,
                headers: Headers::lent(headers),
                body: Block(body),
            })
        };
        vec![
            Frame::Here,
            ask(Some("192.0.2.1"), Side::Shop, b"{}"),
            ask(Some("::1"), Side::Ops, b""),
            ask(None, Side::Owners, b"x"),
            Frame::Credit { id: 1, bytes: 65_536 },
            Frame::Leave { id: u64::MAX },
            Frame::Whole { id: 2, status: 201, headers: Headers::lent(headers), body: Block(b"{\"a\":1}") },
            Frame::Head { id: 3, status: 200, headers: Headers::lent(&[]) },
            Frame::Piece { id: 3, bytes: Block(b"data: 1\n\n") },
            Frame::End { id: 3 },
            Frame::Cut { id: 3 },
            Frame::Elsewhere { id: 4, session: 17 },
            Frame::Dropped { id: 5 },
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        let headers = headers();
        let mut out = Vec::new();
        for frame in all(&headers) {
            frame.encode(&mut out).unwrap();
        }
        let mut rest = out.as_slice();
        for frame in all(&headers) {
            let (read, behind) = Frame::first(rest).unwrap().unwrap();
            assert_eq!(read, frame);
            rest = behind;
        }
        assert!(Frame::first(rest).unwrap().is_none());
    }

    #[test]
    fn a_frame_cut_anywhere_is_not_a_frame() {
        let headers = headers();
        for frame in all(&headers) {
            let mut out = Vec::new();
            frame.encode(&mut out).unwrap();
            for at in 0..out.len() {
                assert!(Frame::first(&out[..at]).unwrap().is_none(), "waits for the rest");
                if at >= LENGTH_BYTES {
                    let mut short = out[..at].to_vec();
                    let bytes = u32::try_from(at - LENGTH_BYTES).unwrap();
                    short[..LENGTH_BYTES].copy_from_slice(&bytes.to_le_bytes());
                    assert!(Frame::first(&short).is_err(), "{frame:?} cut at {at}");
                }
            }
            let bytes = u32::try_from(out.len() - LENGTH_BYTES + 1).unwrap();
            out[..LENGTH_BYTES].copy_from_slice(&bytes.to_le_bytes());
            out.push(0);
            assert!(Frame::first(&out).is_err(), "{frame:?} and a byte");
        }
    }

    #[test]
    fn a_length_that_lies_takes_no_memory() {
        let huge = [0xff, 0xff, 0xff, 0xff, 0x0f];
        let whole = |claims: &[u8]| [[4, 1, 200, 1].as_slice(), claims].concat();
        for body in [whole(&huge), whole(&[&[0], huge.as_slice()].concat()), whole(&[0x80, 0x02, 0])] {
            let length = u32::try_from(body.len()).unwrap().to_le_bytes();
            assert!(Frame::first(&[length.as_slice(), &body].concat()).is_err());
        }
        let large = u32::try_from(FRAME_BYTES_MAX + 1).unwrap();
        assert!(matches!(Frame::first(&large.to_le_bytes()), Err(PeerError::TooLarge { .. })));
        assert!(matches!(Frame::first(&[0xff; 4]), Err(PeerError::TooLarge { .. })));
    }

    #[test]
    fn sizes_are_looked_at_on_both_sides() {
        let body = vec![0; FRAME_BYTES_MAX + 1];
        let mut out = vec![1];
        let piece = |bytes| Frame::Piece { id: 1, bytes: Block(bytes) };
        assert!(matches!(piece(&body).encode(&mut out), Err(PeerError::TooLarge { .. })));
        assert_eq!(out, [1]);
        out.clear();
        piece(&body[..PIECE_BYTES_MAX + 1]).encode(&mut out).unwrap();
        assert!(matches!(Frame::first(&out), Err(PeerError::Malformed(_))));
        let many = vec![(String::new(), Vec::new()); HEADERS_MAX + 1];
        assert!(!head_fits(0, &many) && head_fits(0, &many[1..]));
        assert!(!head_fits(0, &[("a".into(), vec![0; HEAD_BYTES_MAX])]));
        let full = [("a".into(), vec![0; HEAD_BYTES_MAX - 1 - HEADER_EXTRA_BYTES])];
        assert!(head_fits(0, &full));
        let body = Block(&body[..BODY_BYTES_MAX]);
        out.clear();
        let whole = Frame::Whole { id: u64::MAX, status: u16::MAX, headers: Headers::lent(&full), body };
        whole.encode(&mut out).unwrap();
        assert!(Frame::first(&out).unwrap().is_some());
    }

    proptest! {
        #[test]
        fn noise_is_refused_in_peace(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Frame::decode(&bytes);
            let _ = Frame::first(&bytes);
        }

        #[test]
        fn so_is_a_frame_with_a_changed_byte(which in 0_usize..13, at in any::<prop::sample::Index>(), to: u8) {
            let headers = headers();
            let mut out = Vec::new();
            all(&headers)[which].encode(&mut out).unwrap();
            let at = at.index(out.len());
            out[at] = to;
            let _ = Frame::first(&out);
            let _ = Frame::decode(&out[LENGTH_BYTES..]);
        }
    }
}
