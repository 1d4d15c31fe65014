//! Fuzz targets of the edge. What it lets through is read again by small readers that share
//! nothing with it: `request` for heads, `chunked` for the coding.

mod chunked;
mod request;
mod response;

pub(crate) use chunked::chunked;
pub(crate) use request::request;
pub(crate) use response::response;
