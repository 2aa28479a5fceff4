use proptest::prelude::*;

use super::*;

const ALL: u64 = X87 | SSE | AVX;

fn state(seed: u8, present: u64) -> Area {
    let mut bytes: Area = (0..4096_u32)
        .map(|at| seed.wrapping_mul(31).wrapping_add((at % 251) as u8))
        .collect();
    bytes[24..28].copy_from_slice(&MXCSR_INITIAL.to_le_bytes());
    bytes[28..32].fill(0);
    bytes[HEADER..EXTENDED].fill(0);
    bytes[HEADER..HEADER + 8].copy_from_slice(&present.to_le_bytes());
    bytes
}

fn vector_registers(bytes: &[u8]) -> Vec<u8> {
    let (avx, len) = component(2);
    [&bytes[160..416], &bytes[avx..avx + len]].concat()
}

#[test]
fn xsave_state_round_trips_in_either_form() {
    for layout in [Layout::Standard, Layout::Compacted] {
        let before = state(7, ALL);
        let mut area = vec![0; area_len(ALL, layout)];
        save(&before, ALL, layout, &mut area);
        let format = Format::parse(&area, ALL).unwrap();
        assert_eq!(format.compacted.is_some(), layout == Layout::Compacted);
        let mut after = state(99, ALL);
        assert!(restore(&mut after, ALL, format, &area));
        assert_eq!(
            vector_registers(&after),
            vector_registers(&before),
            "{layout:?}"
        );
        assert_eq!(after[..416], before[..416]);
    }
}

#[test]
fn xrstor_initialises_absent_and_keeps_unrequested_components() {
    let mut area = vec![0; area_len(ALL, Layout::Standard)];
    save(&state(7, X87), ALL, Layout::Standard, &mut area);
    let mut after = state(9, ALL);
    let format = Format::parse(&area, ALL).unwrap();
    assert!(restore(&mut after, SSE | AVX, format, &area));
    assert!(vector_registers(&after).iter().all(|&byte| byte == 0));
    assert_eq!(after[..24], state(9, ALL)[..24]);
}

#[test]
fn invalid_xsave_headers_are_rejected() {
    let mut area = vec![0; EXTENDED];
    area[HEADER] = 0x80;
    assert_eq!(Format::parse(&area, ALL), None);
    area[HEADER] = 0;
    area[HEADER + 8] = 1;
    assert_eq!(Format::parse(&area, ALL), None);
    area[HEADER + 8] = 0;
    area[HEADER + 16] = 1;
    assert_eq!(Format::parse(&area, ALL), None);
}

proptest! {
    #[test]
    fn random_xsave_area_is_restored_or_rejected(mut area in proptest::collection::vec(any::<u8>(), EXTENDED..4096), requested in any::<u64>()) {
        area[28..32].fill(0);
        if let Some(format) = Format::parse(&area, STATE_COMPONENTS) {
            area.resize(format.len(requested & STATE_COMPONENTS), 0);
            let mut state = state(1, ALL);
            restore(&mut state, requested & STATE_COMPONENTS, format, &area);
            prop_assert_eq!(state.len(), 4096);
        }
    }
}
