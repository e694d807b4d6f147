//! One harness for property tests, the corpus replay and the fuzz targets: each function takes any bytes and
//! asserts what must hold for all of them. Not part of the API; compiled for tests and fuzzing only.

mod oracle;

use super::*;

/// A harness and its name, which is also that of the fuzz target.
pub type Harness = (&'static str, fn(&[u8]));

/// All of them, so that the replay test forgets none.
pub const ALL: &[Harness] =
    &[("parse", parse), ("views", views), ("checksums", checksums), ("rewrite", rewrite)];

/// [`Layers::parse`] agrees with a slow second reading, and its offsets lie in the frame.
pub fn parse(frame: &[u8]) {
    let layers = Layers::parse(frame);
    let expect = oracle::read(frame);
    assert_eq!(layers.malformed.is_some(), expect.malformed, "{layers:?}");
    assert_eq!(usize::from(layers.vlan_count), expect.tags);
    assert_eq!(layers.ethertype.0, expect.ethertype);
    assert_eq!(layers.protocol.map(|protocol| protocol.0), expect.protocol, "{layers:?}");
    assert_eq!(usize::from(layers.l4_offset), expect.l4_offset, "{layers:?}");
    assert_eq!(layers.ports.map(|ports| (ports.src, ports.dst)), expect.ports);
    assert_eq!(layers.fragment == Fragment::Later, expect.later_fragment);
    assert_eq!(layers.src().is_some(), layers.dst().is_some());
    if layers.ip_version().is_some() {
        let l3 = layers.l3(frame).expect("an IP packet lies in the frame");
        assert!(layers.l3_end as usize <= frame.len() && !l3.is_empty());
    }
    if layers.l4_offset != 0 {
        assert!(layers.l4(frame).is_some());
    }
    if let Some(ports) = layers.ports {
        let l4 = layers.l4(frame).expect("ports come from a header in the frame");
        assert_eq!(l4[..4], [ports.src.to_be_bytes(), ports.dst.to_be_bytes()].concat());
    }
    assert_eq!(layers.vlans().len(), expect.tags);
}

/// Every view, if it accepts the bytes, answers every question, and its payload is a part of them.
pub fn views(bytes: &[u8]) {
    if let Ok(view) = Ethernet::new_checked(bytes) {
        let _ = (view.dst(), view.src(), view.ethertype());
        assert_eq!(view.payload(), &bytes[14..]);
    }
    if let Ok(view) = Vlan::new_checked(bytes) {
        assert_eq!(u16::from(view.pcp()) << 13 | u16::from(view.dei()) << 12 | view.vid(), view.tci());
        assert_eq!(view.payload(), &bytes[4..]);
    }
    if let Ok(view) = Arp::new_checked(bytes) {
        let _ = (view.op(), view.sender_hw(), view.sender_ip(), view.target_hw(), view.target_ip());
    }
    for view in [Ipv4::new_checked(bytes), Ipv4::new_quoted(bytes)].into_iter().flatten() {
        read_ipv4(&view, bytes);
    }
    for view in [Ipv6::new_checked(bytes), Ipv6::new_quoted(bytes)].into_iter().flatten() {
        read_ipv6(&view, bytes);
    }
    for view in [Udp::new_checked(bytes), Udp::new_quoted(bytes)].into_iter().flatten() {
        let _ = (view.src_port(), view.dst_port(), view.checksum());
        let end = view.total_len().min(bytes.len());
        assert_eq!(view.payload(), &bytes[8..end]);
        let _ = view.verify_checksum(&pseudo(bytes));
    }
    if let Ok(view) = Tcp::new_checked(bytes) {
        let _ = (view.src_port(), view.dst_port(), view.seq(), view.ack(), view.flags(), view.window());
        let _ = (view.urgent(), view.checksum(), view.mss(), view.verify_checksum(&pseudo(bytes)));
        assert_eq!(view.payload(), &bytes[view.header_len()..]);
        read_options(view.options(), &bytes[20..view.header_len()]);
    }
    if let Ok(view) = Icmp::new_checked(bytes) {
        let _ = (view.icmp_type(), view.code(), view.checksum(), view.ident(), view.sequence(), view.mtu());
        let _ = (view.verify_checksum(None), view.verify_checksum(Some(&pseudo(bytes))));
        assert_eq!(view.payload(), &bytes[8..]);
    }
    if let Ok(view) = Ndp::new_checked(bytes) {
        let _ =
            (view.is_solicitation(), view.router(), view.solicited(), view.override_flag(), view.target());
        assert!(view.options().count() <= bytes.len() / 8 + 1);
        let _ = (view.link_addr(1), view.link_addr(2));
    }
}

/// A view that may be shorter than its total length: payload and options still lie in the bytes.
fn read_ipv4(view: &Ipv4<&[u8]>, bytes: &[u8]) {
    let _ = (view.dscp(), view.ecn(), view.ident(), view.dont_fragment(), view.ttl(), view.protocol());
    let _ = (view.src(), view.dst(), view.checksum(), view.verify_checksum(), view.pseudo_header());
    assert_eq!(view.is_fragment(), view.more_fragments() || view.fragment_offset() != 0);
    assert!((20..=60).contains(&view.header_len()));
    let end = view.total_len().min(bytes.len());
    assert_eq!(view.payload(), bytes.get(view.header_len()..end).unwrap_or(&[]));
    read_options(view.options(), &bytes[20..view.header_len()]);
}

fn read_ipv6(view: &Ipv6<&[u8]>, bytes: &[u8]) {
    let _ = (view.traffic_class(), view.flow_label(), view.hop_limit(), view.src(), view.dst());
    let end = view.total_len().min(bytes.len());
    assert_eq!(view.payload(), &bytes[40..end]);
    if let Ok(walk) = view.extensions() {
        assert!(walk.offset <= view.payload().len() && walk.offset <= EXT_BYTES_MAX);
        if let Some(fragment) = walk.fragment {
            assert!(fragment.header_offset + FragmentHeader::LEN <= walk.offset);
        }
    }
}

/// Options lie in their area, one behind the other, and an error is the last item.
fn read_options(options: Options<'_>, area: &[u8]) {
    let mut from = 0;
    let mut failed = false;
    for option in options.clone() {
        assert!(!failed, "an item behind an error");
        match option {
            Ok(option) => {
                assert!(option.offset >= from);
                from = option.offset + 2 + option.data.len();
                assert_eq!(option.data, &area[option.offset + 2..from]);
            }
            Err(error) => {
                assert_eq!(error, WireError::Option);
                failed = true;
            }
        }
    }
    assert_eq!(options.validate().is_err(), failed);
}

/// Addresses for a pseudo header, out of the bytes themselves.
fn pseudo(bytes: &[u8]) -> PseudoHeader {
    let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
    if byte(0) & 1 == 0 {
        PseudoHeader::V4 { src: [byte(1), byte(2), byte(3), byte(4)].into(), dst: [byte(5); 4].into() }
    } else {
        PseudoHeader::V6 { src: [byte(1); 16].into(), dst: [byte(2); 16].into() }
    }
}

/// The fast sum equals the definition, however the bytes are cut; an update equals a recomputation.
pub fn checksums(bytes: &[u8]) {
    let expect = oracle::sum(bytes);
    assert_eq!(Checksum::new().add_bytes(bytes).fold(), expect);
    let cut = bytes.first().map_or(0, |byte| usize::from(*byte)).min(bytes.len());
    let pieces = Checksum::new().add_bytes(&bytes[..cut]).add_bytes(&[]).add_bytes(&bytes[cut..]);
    assert_eq!(pieces.fold(), expect, "cut at {cut}");

    // The first two bytes say which word changes, the next 16 what it becomes.
    let Some(([at_high, at_low, new @ ..], data)) = bytes.split_first_chunk::<18>() else { return };
    let mut data = [&[1], data].concat(); // never all zero: see checksum::update
    let before = checksum::checksum(&data);
    for width in [2, 4, 16] {
        let at = (usize::from(u16::from_be_bytes([*at_high, *at_low])) % data.len()) & !1;
        let mut data = data.clone();
        let Some(field) = data.get_mut(at..at + width) else { continue };
        let old = field.to_vec();
        field.copy_from_slice(&new[..width]);
        if data.iter().all(|byte| *byte == 0) {
            continue;
        }
        let after = checksum::checksum(&data);
        assert_eq!(checksum::update_bytes(before, &old, &new[..width]), after, "width {width} at {at}");
        let word = |field: &[u8], at: usize| u16::from_be_bytes([field[at], field[at + 1]]);
        let long = |field: &[u8]| u32::from(word(field, 0)) << 16 | u32::from(word(field, 2));
        match width {
            2 => assert_eq!(checksum::update(before, word(&old, 0), word(new, 0)), after),
            4 => assert_eq!(checksum::update32(before, long(&old), long(new)), after),
            _ => {}
        }
    }
    // Data with its own checksum in it is valid, and no longer so with a bit turned.
    if data.len() % 2 == 1 {
        data.push(0);
    }
    data.extend(checksum::checksum(&data).to_be_bytes());
    assert!(Checksum::new().add_bytes(&data).is_valid());
    data[0] ^= 0x10;
    assert!(!Checksum::new().add_bytes(&data).is_valid());
}

/// After any setter with any value, every reader still answers: the panic promise for writers.
pub fn rewrite(bytes: &[u8]) {
    let Some(([high, low, byte, len], body)) = bytes.split_first_chunk::<4>() else { return };
    let (word, byte, len) = (u16::from_be_bytes([*high, *low]), *byte, usize::from(*len));
    rewrite_ipv4(body, word, byte, len);
    rewrite_others(body, word, byte, len);
}

fn rewrite_ipv4(body: &[u8], word: u16, byte: u8, len: usize) {
    for view in [Ipv4::new_checked(body.to_vec()), Ipv4::init(body.to_vec())] {
        let Ok(mut view) = view else { continue };
        view.fill_checksum();
        assert!(view.verify_checksum());
        if view.decrement_ttl() {
            assert!(view.verify_checksum(), "incremental update of the TTL");
        }
        view.set_dscp(byte);
        view.set_ecn(byte);
        assert_eq!((view.dscp(), view.ecn()), (byte & 0x3f, byte & 3));
        view.set_fragment(byte & 1 != 0, byte & 2 != 0, word);
        assert_eq!((view.dont_fragment(), view.more_fragments()), (byte & 1 != 0, byte & 2 != 0));
        assert_eq!(view.fragment_offset(), usize::from(word & !7));
        if view.set_header_len(len).is_ok() {
            assert_eq!(view.header_len(), len);
            view.options_mut().fill(byte);
        }
        view.set_total_len(word);
        view.payload_mut().fill(byte);
        let _ = (view.payload(), view.options().validate(), view.verify_checksum());
        view.fill_checksum();
        views(&view.into_inner());
    }
}

fn rewrite_others(body: &[u8], word: u16, byte: u8, len: usize) {
    let pseudo = pseudo(body);
    for view in [Udp::new_checked(body.to_vec()), Udp::init(body.to_vec())] {
        let Ok(mut view) = view else { continue };
        view.fill_checksum(&pseudo);
        assert!(view.checksum() != 0 && view.verify_checksum(&pseudo));
        view.set_total_len(word);
        view.payload_mut().fill(byte);
        view.fill_checksum(&pseudo);
        let _ = (view.payload(), view.verify_checksum(&pseudo));
    }
    for view in [Tcp::new_checked(body.to_vec()), Tcp::init(body.to_vec())] {
        let Ok(mut view) = view else { continue };
        view.fill_checksum(&pseudo);
        assert!(view.verify_checksum(&pseudo));
        if view.set_header_len(len).is_ok() {
            assert_eq!(view.header_len(), len);
        }
        view.options_mut().fill(byte);
        view.payload_mut().fill(byte);
        let _ = (view.mss(), view.options().validate(), view.payload());
    }
    for view in [Ipv6::new_checked(body.to_vec()), Ipv6::init(body.to_vec())] {
        let Ok(mut view) = view else { continue };
        view.set_traffic_class(byte);
        view.set_flow_label(u32::from(word) << 8);
        assert_eq!((view.traffic_class(), view.flow_label()), (byte, u32::from(word) << 8 & 0xf_ffff));
        view.set_next_header(Protocol(byte));
        view.set_payload_len(word);
        view.payload_mut().fill(byte);
        let _ = (view.payload(), view.extensions());
        views(&view.into_inner());
    }
    if let Ok(mut view) = Icmp::init(body.to_vec()) {
        view.set_mtu(u32::from(word));
        view.fill_checksum(Some(&pseudo));
        assert!(view.verify_checksum(Some(&pseudo)));
        view.fill_checksum(None);
        assert!(view.verify_checksum(None));
    }
    if let Ok(mut view) = Ndp::init(body.to_vec(), byte & 1 != 0) {
        let _ = view.set_link_addr(byte, EtherAddr([byte; 6]));
        view.set_flags(byte & 2 != 0, byte & 4 != 0, byte & 8 != 0);
        views(&view.into_inner());
    }
}
