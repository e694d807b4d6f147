//! The built-in IP extensions on a running router.

use nke_dataplane::control_handle::AttachSpec;
use nke_filters::builtin;
use nke_filters::{ArgValue, Args};
use nke_mbuf::wire::Ipv4;

use crate::bed::*;

fn attach(bed: &Bed, kind: &str, args: &[(&str, &str)]) {
    let control = bed.control();
    for known in builtin::all_ip() {
        if known.name() == kind {
            control.register_ip(known).unwrap().wait(WAIT).unwrap();
        }
    }
    let args =
        args.iter().map(|(name, value)| ((*name).to_owned(), ArgValue::Text((*value).to_owned()))).collect();
    let spec = AttachSpec { args: Args(args), ..AttachSpec::kind(kind, "ip") };
    control.attach(spec).unwrap().wait(WAIT).unwrap();
}

fn bed() -> Bed {
    let bed = Bed::new();
    bed.neighbor(0, "192.0.2.9");
    bed.neighbor(1, "198.51.100.9");
    bed
}

fn dropped_by(bed: &Bed, kind: &str) -> u64 {
    let all = bed.runtime.shared().drops();
    all.into_iter().filter(|(name, ..)| name.starts_with(kind)).map(|(.., n)| n).sum()
}

#[test]
fn acl_drops_by_rule_under_its_own_reason() {
    let bed = bed();
    attach(&bed, "acl", &[("rule", "permit udp from any to 198.51.100.9 port 53")]);
    let packet = |port| udp(v4("192.0.2.9").into(), v4("198.51.100.9").into(), port, b"");
    bed.send(0, &frame(MAC[0], HOST[0], 0x0800, &packet(53)));
    bed.next(1);
    bed.send(0, &frame(MAC[0], HOST[0], 0x0800, &packet(54)));
    until("it is dropped", || (dropped_by(&bed, "acl") == 1).then_some(()));
    bed.silence();
    bed.control().unregister("acl", WAIT).unwrap().wait(WAIT).unwrap();
    bed.send(0, &frame(MAC[0], HOST[0], 0x0800, &packet(54)));
    bed.next(1);
    bed.finish();
}

#[test]
fn nat_goes_out_and_comes_back() {
    let bed = bed();
    attach(&bed, "nat", &[("inside", "192.0.2.0/24"), ("to", "203.0.113.1")]);
    let packet = udp(v4("192.0.2.9").into(), v4("198.51.100.9").into(), 9, b"there");
    bed.send(0, &frame(MAC[0], HOST[0], 0x0800, &packet));
    let out = bed.next(1);
    let ip = Ipv4::new_checked(&out[14..]).unwrap();
    assert_eq!((ip.src(), ip.verify_checksum()), (v4("203.0.113.1"), true));
    let port = u16::from_be_bytes([out[34], out[35]]);
    let mut back = udp(v4("198.51.100.9").into(), v4("203.0.113.1").into(), port, b"back");
    // From the port it went to; the checksum is left out.
    back[20..22].copy_from_slice(&9u16.to_be_bytes());
    back[26..28].fill(0);
    bed.send(1, &frame(MAC[1], HOST[1], 0x0800, &back));
    let out = bed.next(0);
    let ip = Ipv4::new_checked(&out[14..]).unwrap();
    assert_eq!((ip.dst(), &out[36..38]), (v4("192.0.2.9"), &4000u16.to_be_bytes()[..]));
    bed.control().unregister("nat", WAIT).unwrap().wait(WAIT).unwrap();
    bed.finish();
}
