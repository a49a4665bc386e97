//! As much of HTTP/1.1 as a load generator needs: requests put together from prepared pieces, and answers read without
//! copying. The hot path allocates nothing: a request is three copies into a buffer that is used again, an answer is
//! a status, an outcome word, an order id and a sequence.

use memchr::memmem;

use crate::answer::OrderId;

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

/// What stands behind the colon of a member of the outermost object, whatever lies before it: the order of members is
/// nobody's promise.
pub fn member<'a>(json: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (mut at, mut depth) = (0, 0);
    while at < json.len() {
        match json[at] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b'"' => {
                let start = at + 1;
                at = start + string_len(&json[start..])?;
                let behind = json[at + 1..].trim_ascii_start();
                if depth == 1 && &json[start..at] == name && behind.starts_with(b":") {
                    return Some(behind[1..].trim_ascii_start());
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// How many bytes a string has up to its closing quote.
fn string_len(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        match bytes[at] {
            b'"' => return Some(at),
            _ => at += 2,
        }
    }
}

/// Which idempotency key: a buyer's first, or a later one after an order of his was not paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub attempt: u64,
    /// 0 for the first.
    pub round: u8,
}

/// Every request of a run, put together from a head for each user and a body for each product.
pub struct OrderRequests {
    heads: Vec<Vec<u8>>,
    tails: Vec<Vec<u8>>,
    run: u32,
    pays: bool,
}

impl OrderRequests {
    /// `run` tells this run's idempotency keys from every other run's. With a card's token each order is paid at once.
    pub fn new(
        host: &str,
        tokens: &[String],
        products: &[String],
        quantity: u64,
        card: Option<&str>,
        run: u32,
    ) -> Self {
        let heads = tokens.iter().map(|token| format!("Host: {host}\r\nAuthorization: Bearer {token}\r\n"));
        let payment = card
            .map(|card| format!(r#","payment":{{"method":{{"type":"card","token":"{card}"}}}}"#))
            .unwrap_or_default();
        let tails = products.iter().map(|product| {
            let body =
                format!(r#"{{"items":[{{"product_id":"{product}","quantity":{quantity}}}]{payment}}}"#);
            format!("\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        });
        Self {
            heads: heads.map(String::into_bytes).collect(),
            tails: tails.map(String::into_bytes).collect(),
            run,
            pays: card.is_some(),
        }
    }

    /// Whether ordering and paying is one call.
    pub fn pays(&self) -> bool {
        self.pays
    }

    /// The attempt's buyer: attempts go round the users, so that each comes equally often.
    pub fn user_of(&self, attempt: u64) -> usize {
        (attempt % self.heads.len() as u64) as usize
    }

    pub fn key_of(&self, key: Key) -> String {
        let mut out = Vec::with_capacity(KEY_LEN_MAX);
        write_key(self.run, key, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    pub fn write(&self, key: Key, product: u32, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(b"POST /v1/orders HTTP/1.1\r\nContent-Type: application/json\r\n");
        out.extend_from_slice(&self.heads[self.user_of(key.attempt)]);
        out.extend_from_slice(b"Idempotency-Key: ");
        write_key(self.run, key, out);
        out.extend_from_slice(&self.tails[product as usize]);
    }

    /// The buyer looks how an order of his stands.
    pub fn write_look(&self, attempt: u64, order: OrderId, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(b"GET /v1/orders/");
        out.extend_from_slice(order.as_str().as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        out.extend_from_slice(&self.heads[self.user_of(attempt)]);
        out.extend_from_slice(b"\r\n");
    }
}

const KEY_LEN_MAX: usize = 23;

/// `{run:08x}-{attempt:010}`, and `-{round}` behind it from the second on, without the formatting machinery.
fn write_key(run: u32, key: Key, out: &mut Vec<u8>) {
    let mut text = [b'-'; KEY_LEN_MAX];
    for (place, byte) in text[..8].iter_mut().enumerate() {
        *byte = b"0123456789abcdef"[(run >> (28 - 4 * place)) as usize & 15];
    }
    write_digits(key.attempt, &mut text[9..19]);
    write_digits(u64::from(key.round), &mut text[20..]);
    out.extend_from_slice(if key.round == 0 { &text[..19] } else { &text });
}

fn write_digits(number: u64, out: &mut [u8]) {
    let mut rest = number;
    for byte in out.iter_mut().rev() {
        *byte = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
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
    fn a_member_is_found_by_its_depth_and_not_by_its_place() {
        let json =
            br#"{"a": {"status":"inner"}, "b\"status": ["status", "\\"], "c":"status","status": "outer"}"#;
        assert_eq!(member(json, b"status"), Some(&br#""outer"}"#[..]));
        assert_eq!(
            member(json, b"a").and_then(|inner| member(inner, b"status")).map(|value| &value[..7]),
            Some(&br#""inner""#[..])
        );
        assert_eq!(member(json, b"inner"), None);
        assert_eq!(member(br#"{"cut off"#, b"cut off"), None);
        assert_eq!(member(br#"{"cut\"#, b"cut"), None);
    }

    #[test]
    fn a_request_carries_token_key_and_body() {
        let requests = |card| OrderRequests::new("h:1", &["tok".into()], &["prod_x".into()], 2, card, 0xbeef);
        let key = Key { attempt: 42, round: 0 };
        let text = |requests: &OrderRequests, key| {
            let mut out = Vec::new();
            requests.write(key, 0, &mut out);
            String::from_utf8(out).unwrap()
        };
        let first = text(&requests(None), key);
        assert!(first.starts_with("POST /v1/orders HTTP/1.1\r\n") && first.contains("Bearer tok\r\n"));
        assert!(first.contains("Idempotency-Key: 0000beef-0000000042\r\nContent-Length: "));
        assert!(first.contains(&requests(None).key_of(key)));
        assert!(first.ends_with(r#"{"items":[{"product_id":"prod_x","quantity":2}]}"#));
        let second = text(&requests(None), Key { round: 7, ..key });
        assert!(second.contains("Idempotency-Key: 0000beef-0000000042-007\r\n"));
        let paying = text(&requests(Some("tok_ok")), key);
        let (_, body) = paying.split_once("\r\n\r\n").unwrap();
        assert!(paying.contains(&format!("Content-Length: {}\r\n", body.len())));
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let card = serde_json::json!({ "type": "card", "token": "tok_ok" });
        assert_eq!(body["payment"]["method"], card);
    }

    #[test]
    fn a_look_is_a_get_of_the_order_by_its_buyer() {
        let requests = OrderRequests::new("h:1", &["a".into(), "b".into()], &["prod_x".into()], 1, None, 1);
        let mut out = Vec::new();
        requests.write_look(3, OrderId::read("order_x").unwrap(), &mut out);
        let expected = "GET /v1/orders/order_x HTTP/1.1\r\nHost: h:1\r\nAuthorization: Bearer b\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
