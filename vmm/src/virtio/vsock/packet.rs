//! Packet headers (virtio 1.2 section 5.10.6).

/// The guest's context id. All guests have the same, because each has a monitor of its own.
pub(crate) const GUEST_CID: u64 = 3;
/// The host's context id (`VMADDR_CID_HOST`).
const HOST_CID: u64 = 2;

/// Bytes of a header.
pub(super) const HEADER_LEN: usize = 44;
/// Maximum data length of a packet from the guest.
pub(super) const DATA_LIMIT: u32 = 64 << 10;

/// `VIRTIO_VSOCK_TYPE_STREAM`.
const STREAM: u16 = 1;

/// Operation of a packet (`VIRTIO_VSOCK_OP_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Request,
    Response,
    Reset,
    Shutdown,
    Data,
    CreditUpdate,
    CreditRequest,
}

/// The sender will not receive any more data.
pub(super) const SHUTDOWN_RECEIVE: u32 = 1;
/// The sender will not send any more data.
pub(super) const SHUTDOWN_SEND: u32 = 2;

/// A packet header between the guest and the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) guest_port: u32,
    pub(super) host_port: u32,
    pub(super) len: u32,
    pub(super) op: Op,
    pub(super) flags: u32,
    pub(super) buf_alloc: u32,
    pub(super) fwd_cnt: u32,
}

impl Header {
    /// Decodes a header from the guest; `None` if its addresses, type or operation are not supported.
    pub(super) fn decode(bytes: &[u8; HEADER_LEN]) -> Option<Self> {
        let mut fields = FieldReader(bytes);
        let (source, target) = (fields.u64()?, fields.u64()?);
        let (guest_port, host_port) = (fields.u32()?, fields.u32()?);
        let len = fields.u32()?;
        let (kind, op) = (fields.u16()?, fields.u16()?);
        let (flags, buf_alloc, fwd_cnt) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let op = Op::decode(op)?;
        (source == GUEST_CID && target == HOST_CID && kind == STREAM).then_some(Self {
            guest_port,
            host_port,
            len,
            op,
            flags,
            buf_alloc,
            fwd_cnt,
        })
    }

    /// Encodes a header from the host to the guest.
    pub(super) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        put(&HOST_CID.to_le_bytes());
        put(&GUEST_CID.to_le_bytes());
        put(&self.host_port.to_le_bytes());
        put(&self.guest_port.to_le_bytes());
        put(&self.len.to_le_bytes());
        put(&STREAM.to_le_bytes());
        put(&self.op.encode().to_le_bytes());
        put(&self.flags.to_le_bytes());
        put(&self.buf_alloc.to_le_bytes());
        put(&self.fwd_cnt.to_le_bytes());
        bytes
    }
}

impl Op {
    fn decode(op: u16) -> Option<Self> {
        Some(match op {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::Data,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            _ => return None,
        })
    }

    fn encode(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Reset => 3,
            Self::Shutdown => 4,
            Self::Data => 5,
            Self::CreditUpdate => 6,
            Self::CreditRequest => 7,
        }
    }
}

struct FieldReader<'a>(&'a [u8]);

impl FieldReader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn from_guest(header: &Header) -> [u8; HEADER_LEN] {
        let mut bytes = header.encode();
        bytes[..8].copy_from_slice(&GUEST_CID.to_le_bytes());
        bytes[8..16].copy_from_slice(&HOST_CID.to_le_bytes());
        bytes[16..20].copy_from_slice(&header.guest_port.to_le_bytes());
        bytes[20..24].copy_from_slice(&header.host_port.to_le_bytes());
        bytes
    }

    #[test]
    fn vsock_header_round_trips() {
        let header = Header {
            guest_port: 1,
            host_port: 2,
            len: 3,
            op: Op::Data,
            flags: 4,
            buf_alloc: 5,
            fwd_cnt: 6,
        };
        assert_eq!(Header::decode(&from_guest(&header)), Some(header));
    }

    #[test]
    fn foreign_vsock_header_is_rejected() {
        let header = Header {
            guest_port: 1,
            host_port: 2,
            len: 3,
            op: Op::Data,
            flags: 4,
            buf_alloc: 5,
            fwd_cnt: 6,
        };
        for at in [0, 8, 28, 30] {
            let mut bytes = from_guest(&header);
            bytes[at] = 0x7f;
            assert_eq!(Header::decode(&bytes), None, "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn decoded_vsock_header_encodes_to_the_same_bytes(bytes in any::<[u8; HEADER_LEN]>()) {
            if let Some(header) = Header::decode(&bytes) {
                prop_assert_eq!(from_guest(&header), bytes);
            }
        }
    }
}
