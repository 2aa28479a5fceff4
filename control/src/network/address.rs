//! Addresses and ranges of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A range of addresses; a lone address is one of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Reads `address` or `address/bits`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (address, prefix) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let widest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => widest,
            Some(bits) if bits.bytes().all(|c| c.is_ascii_digit()) => bits.parse().ok()?,
            Some(_) => return None,
        };
        (prefix <= widest).then_some(Self { address, prefix })
    }
}

/// Addresses that nothing in a sandbox may ever reach, whatever was asked for.
pub(super) fn is_never_allowed(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_inside(address),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => is_inside(address),
            None => {
                let first = address.segments()[0];
                address == Ipv6Addr::LOCALHOST
                    || first & 0xfe00 == 0xfc00
                    || first & 0xffc0 == 0xfe80
            }
        },
    }
}

fn is_inside(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || (first == 100 && second & 0xc0 == 64)
}
