//! Responses of tiny_http: the same whatever reads give, and whole for the client.

use super::chunked::{Decoded, decode};
use crate::edge::head::HEAD_MAX_BYTES;
use crate::edge::response::{Malformed, Request, Response};
use crate::fuzz::input::{Input, reads};

/// The first byte says what the request was, the second where reads end, the rest is the response.
pub(crate) fn response(data: &[u8]) {
    let mut input = Input::new(data);
    let (about, seed) = (input.byte(), input.byte());
    let bytes = input.rest();
    if bytes.len() >= HEAD_MAX_BYTES {
        return; // the bound of a head is seen when a read ends
    }
    let is_http_10 = about & 2 != 0;
    let request = Request {
        is_head: about & 1 != 0,
        is_http_10,
        keep_alive: !is_http_10 && about & 4 != 0,
    };
    let whole = pass(request, std::iter::once(bytes));
    let pieces = pass(request, reads(bytes, seed));
    let (Ok((out, response)), Ok((out_of_pieces, other))) = (&whole, &pieces) else {
        assert_eq!(whole.is_err(), pieces.is_err());
        return;
    };
    assert_eq!(
        out.escape_ascii().to_string(),
        out_of_pieces.escape_ascii().to_string()
    );
    assert_eq!(response.is_end(), other.is_end());
    assert_eq!(response.keeps_client(), other.keeps_client());
    assert_eq!(response.keeps_inner(), other.keeps_inner());
    if response.has_begun() {
        check(request, bytes, out, response);
    } else {
        assert!(out.is_empty());
    }
}

fn pass<'a>(
    request: Request,
    reads: impl Iterator<Item = &'a [u8]>,
) -> Result<(Vec<u8>, Response), Malformed> {
    let mut response = Response::new(request);
    let mut out = Vec::new();
    for read in reads {
        response.feed(read, &mut out)?;
    }
    Ok((out, response))
}

fn split_head(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    bytes.split_at(end.map_or(bytes.len(), |end| end + 4))
}

fn check(request: Request, bytes: &[u8], out: &[u8], response: &Response) {
    let (head, body) = split_head(out);
    let (_, given) = split_head(bytes);
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut read = httparse::Response::new(&mut fields);
    let is_whole =
        matches!(read.parse(head), Ok(httparse::Status::Complete(len)) if len == head.len());
    assert!(is_whole, "{:?}", head.escape_ascii());
    let find = |name: &str| {
        let mut fields = read.headers.iter();
        fields.find(|field| field.name.eq_ignore_ascii_case(name))
    };
    let close = find("Connection").map(|field| field.value);
    assert!(close.is_none_or(|value| value == b"close"));
    if response.keeps_client() {
        assert!(close.is_none() && request.keep_alive);
    }
    if request.is_head {
        assert!(body.is_empty() && response.is_end());
    }
    if request.is_http_10 {
        assert!(find("Transfer-Encoding").is_none());
    } else if find("Transfer-Encoding").is_some() && !body.is_empty() {
        assert!(given.starts_with(body));
        match decode(body) {
            Decoded::Whole { len, .. } => assert!(len == body.len() && response.is_end()),
            Decoded::Part => assert!(!response.is_end()),
            Decoded::Broken => panic!("a broken body was passed on"),
        }
    } else {
        assert!(given.starts_with(body));
    }
}
