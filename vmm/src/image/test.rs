use proptest::prelude::*;

use super::*;

fn header(version: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes.extend_from_slice(blake3::hash(payload).as_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

#[test]
fn another_version_is_named() {
    assert!(matches!(
        MachineState::decode(&header(9, b"")),
        Err(ImageError::Version(9))
    ));
}

#[test]
fn a_file_cut_anywhere_is_cut_short() {
    let whole = header(VERSION, &[7; 100]);
    for len in 8..whole.len() {
        assert!(
            matches!(
                MachineState::decode(&whole[..len]),
                Err(ImageError::Short { .. })
            ),
            "{len}"
        );
    }
}

#[test]
fn a_flipped_bit_of_the_payload_is_seen() {
    let mut bytes = header(VERSION, &[7; 100]);
    bytes[HEADER_LEN + 50] ^= 4;
    assert!(matches!(
        MachineState::decode(&bytes),
        Err(ImageError::Digest)
    ));
}

proptest! {
    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(MachineState::decode(&bytes).is_err());
    }

    #[test]
    fn any_payload_with_a_right_digest_is_refused_without_a_panic(payload in proptest::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(MachineState::decode(&header(VERSION, &payload)).is_err());
    }
}
