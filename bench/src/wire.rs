//! As much of HTTP/1.1 as a load generator needs: requests put together from prepared pieces, and answers read without
//! copying. The hot path allocates nothing: a request is three copies into a buffer that is used again, an answer is
//! a status, an outcome word, an order id and a sequence.

use memchr::memmem;

/// The head of an answer that has arrived whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    pub head_len: usize,
    pub body_len: usize,
}

/// The peer does not speak HTTP/1.1 with `Content-Length`.
#[derive(Debug)]
pub struct Malformed(pub &'static str);

impl Head {
    /// `None` until head and body are complete.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
            return if bytes.len() > 16 * 1024 { Err(Malformed("an endless head")) } else { Ok(None) };
        };
        let status = bytes
            .get(9..12)
            .filter(|_| bytes.starts_with(b"HTTP/1."))
            .and_then(number)
            .ok_or(Malformed("no status line"))? as u16;
        let body_len = match header(&bytes[..end], b"content-length: ") {
            Some(value) => number(value).ok_or(Malformed("a content length that is no number"))? as usize,
            None if status == 204 || status == 304 || status < 200 => 0,
            None => return Err(Malformed("an answer without content length")),
        };
        let head_len = end + 4;
        Ok((bytes.len() >= head_len + body_len).then_some(Self { status, head_len, body_len }))
    }

    pub fn len(&self) -> usize {
        self.head_len + self.body_len
    }
}

/// The value of a header; `name` in lower case and with its `": "`. The way servers usually write it is tried first.
pub fn header<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let start = match memmem::find(head, name) {
        Some(at) => at + name.len(),
        None => head.windows(name.len()).position(|window| window.eq_ignore_ascii_case(name))? + name.len(),
    };
    let value = &head[start..];
    Some(&value[..memchr::memchr(b'\r', value).unwrap_or(value.len())])
}

/// The digits at the start of the bytes.
pub fn number(bytes: &[u8]) -> Option<u64> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit());
    let mut seen = false;
    let value = digits.take(19).fold(0, |value, digit| {
        seen = true;
        value * 10 + u64::from(digit - b'0')
    });
    seen.then_some(value)
}

/// What stands after `field` (written with quotes and colon, as in `"sequence":`) in compact JSON.
pub fn field<'a>(json: &'a [u8], field: &[u8]) -> Option<&'a [u8]> {
    memmem::find(json, field).map(|at| &json[at + field.len()..])
}

/// The text up to the closing quote.
pub fn until_quote(bytes: &[u8]) -> &[u8] {
    &bytes[..memchr::memchr(b'"', bytes).unwrap_or(bytes.len())]
}

/// Every order request of a run, put together from a head for each user and a body for each product.
pub struct OrderRequests {
    heads: Vec<Vec<u8>>,
    tails: Vec<Vec<u8>>,
    run: u32,
}

impl OrderRequests {
    /// `run` tells this run's idempotency keys from every other run's.
    pub fn new(host: &str, tokens: &[String], products: &[String], quantity: u64, run: u32) -> Self {
        let heads = tokens.iter().map(|token| {
            format!(
                "POST /v1/orders HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
                 Authorization: Bearer {token}\r\nIdempotency-Key: "
            )
        });
        let tails = products.iter().map(|product| {
            let body = format!(r#"{{"items":[{{"product_id":"{product}","quantity":{quantity}}}]}}"#);
            format!("\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        });
        Self {
            heads: heads.map(String::into_bytes).collect(),
            tails: tails.map(String::into_bytes).collect(),
            run,
        }
    }

    /// The attempt's buyer: attempts go round the users, so that each comes equally often.
    pub fn user_of(&self, attempt: u64) -> usize {
        (attempt % self.heads.len() as u64) as usize
    }

    pub fn key_of(&self, attempt: u64) -> String {
        format!("{:08x}-{attempt:010}", self.run)
    }

    pub fn write(&self, attempt: u64, product: u32, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.heads[self.user_of(attempt)]);
        write_key(self.run, attempt, out);
        out.extend_from_slice(&self.tails[product as usize]);
    }
}

/// `{run:08x}-{attempt:010}` without the formatting machinery.
fn write_key(run: u32, attempt: u64, out: &mut Vec<u8>) {
    let mut key = [b'-'; 19];
    for (place, byte) in key[..8].iter_mut().enumerate() {
        *byte = b"0123456789abcdef"[(run >> (28 - 4 * place)) as usize & 15];
    }
    let mut rest = attempt;
    for byte in key[9..].iter_mut().rev() {
        *byte = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&key);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_when_its_body_is() {
        let bytes = b"HTTP/1.1 201 Created\r\ncontent-length: 5\r\ndate: x\r\n\r\nhello";
        let head = Head::parse(bytes).unwrap().unwrap();
        assert_eq!((head.status, head.body_len, head.len()), (201, 5, bytes.len()));
        assert!(Head::parse(&bytes[..bytes.len() - 1]).unwrap().is_none());
        assert!(Head::parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        assert!(Head::parse(b"SSH-2.0\r\n\r\n").is_err());
    }

    #[test]
    fn headers_are_found_in_any_case() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\nX: y";
        assert_eq!(number(header(head, b"content-length: ").unwrap()), Some(17));
        assert_eq!(header(head, b"x: "), Some(&b"y"[..]));
    }

    #[test]
    fn a_request_carries_token_key_and_body() {
        let requests = OrderRequests::new("h:1", &["tok".into()], &["prod_x".into()], 2, 0xbeef);
        let mut out = Vec::new();
        requests.write(42, 0, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("Bearer tok\r\nIdempotency-Key: 0000beef-0000000042\r\nContent-Length: "));
        assert!(text.contains(&requests.key_of(42)));
        assert!(text.ends_with(r#"{"items":[{"product_id":"prod_x","quantity":2}]}"#));
    }
}
