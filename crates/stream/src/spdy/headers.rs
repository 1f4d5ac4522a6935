//! Header blocks (SPDY/3.1 draft, 2.6.10): names and values, in one zlib stream for the whole connection.

use std::sync::LazyLock;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

/// A block takes at most so much: Kubernetes' clients send four short headers.
const LARGEST: usize = 16 << 10;

/// What both ends' zlib streams begin with (2.6.10.1): words in the order of the draft, each after its length, and a
/// text of further fragments.
static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
        accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
        content-length content-location content-md5 content-range content-type date etag expect expires from host \
        if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards \
        pragma proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding \
        upgrade user-agent vary via warning www-authenticate method get status 200~OK version HTTP/1.1 url public \
        set-cookie keep-alive origin";
    const TEXT: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
        203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized\
        403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
        Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
        chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,\
        text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";
    let mut dictionary = Vec::new();
    for word in WORDS.split(' ') {
        dictionary.extend((word.len() as u32).to_be_bytes());
        dictionary.extend(word.replace('~', " ").into_bytes());
    }
    dictionary.extend(TEXT.bytes());
    dictionary
});

/// Why a block cannot be read; the connection is lost with it, for later ones depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Names, in lower case, and values.
pub type Headers = Vec<(String, String)>;

/// Reads the blocks of a connection.
pub struct Decoder(Decompress);

impl Decoder {
    pub fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub fn decode(&mut self, block: &[u8]) -> Result<Headers, Malformed> {
        parse(&self.inflate(block)?).ok_or(Malformed)
    }

    fn inflate(&mut self, block: &[u8]) -> Result<Vec<u8>, Malformed> {
        let start = self.0.total_in();
        let mut plain = Vec::with_capacity(1024);
        loop {
            let rest = &block[(self.0.total_in() - start) as usize..];
            let before = (rest.len(), plain.len());
            match self.0.decompress_vec(rest, &mut plain, FlushDecompress::Sync) {
                Err(e) if e.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&DICTIONARY).map_err(|_| Malformed)?;
                    continue;
                }
                Err(_) => return Err(Malformed),
                Ok(_) => {}
            }
            let left = block.len() - (self.0.total_in() - start) as usize;
            if plain.len() == plain.capacity() {
                if plain.len() >= LARGEST {
                    return Err(Malformed);
                }
                plain.reserve(plain.len());
            } else if left == 0 || before == (left, plain.len()) {
                return Ok(plain);
            }
        }
    }
}

/// Writes the blocks of a connection.
pub struct Encoder(Compress);

impl Encoder {
    pub fn new() -> Self {
        let mut compress = Compress::new(Compression::fast(), true);
        if compress.set_dictionary(&DICTIONARY).is_err() {
            tracing::error!("zlib refuses the dictionary of SPDY");
        }
        Self(compress)
    }

    pub fn encode(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut plain = Vec::new();
        plain.extend((headers.len() as u32).to_be_bytes());
        for part in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend((part.len() as u32).to_be_bytes());
            plain.extend(part.bytes());
        }
        // Always enough: what cannot be compressed grows by a few bytes.
        let mut block = Vec::with_capacity(plain.len() + 128);
        if self.0.compress_vec(&plain, &mut block, FlushCompress::Sync).is_err() {
            tracing::error!("zlib fails to compress a header block");
        }
        block
    }
}

pub(crate) fn parse(plain: &[u8]) -> Option<Headers> {
    let mut rest = plain;
    let count = number(&mut rest)?;
    let mut headers = Headers::new();
    for _ in 0..count {
        let (name, value) = (text(&mut rest)?, text(&mut rest)?);
        headers.push((name.to_ascii_lowercase(), value));
    }
    Some(headers)
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    let (number, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u32::from_be_bytes(*number))
}

fn text(rest: &mut &[u8]) -> Option<String> {
    let length = number(rest)? as usize;
    let (text, after) = rest.split_at_checked(length)?;
    *rest = after;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The checksum by which both ends know the dictionary: the first bytes of any client's first block.
    #[test]
    fn the_dictionary_is_the_draft_s() {
        let block = Encoder::new().encode(&[]);
        assert_eq!(block[2..6], [0xe3, 0xc6, 0xa7, 0xc2]);
        assert_eq!(DICTIONARY.len(), 1423);
    }

    #[test]
    fn a_block_that_grows_without_end_is_refused() {
        let huge = "a".repeat(1 << 20);
        let block = Encoder::new().0;
        let mut encoder = Encoder(block);
        let mut plain = 1u32.to_be_bytes().to_vec();
        plain.extend(b"\0\0\0\x01a");
        plain.extend((huge.len() as u32).to_be_bytes());
        plain.extend(huge.bytes());
        let mut block = Vec::with_capacity(1 << 20);
        encoder.0.compress_vec(&plain, &mut block, FlushCompress::Sync).unwrap();
        assert!(block.len() < 16384, "a small frame: {}", block.len());
        assert_eq!(Decoder::new().decode(&block), Err(Malformed));
    }

    proptest! {
        #[test]
        fn blocks_are_read_as_written(blocks in prop::collection::vec(prop::collection::vec(("[a-z]{1,8}", ".{0,300}"), 0..5), 1..5)) {
            let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
            for block in blocks {
                let headers: Vec<_> = block.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                prop_assert_eq!(decoder.decode(&encoder.encode(&headers)), Ok(block));
            }
        }

        #[test]
        fn no_block_panics(plain in prop::collection::vec(any::<u8>(), 0..64), garbage: bool) {
            if garbage {
                let _ = Decoder::new().decode(&plain);
            } else {
                let mut block = Vec::with_capacity(256);
                Encoder::new().0.compress_vec(&plain, &mut block, FlushCompress::Sync).unwrap();
                let _ = Decoder::new().decode(&block);
            }
        }
    }
}
