use super::*;

fn covers_text(block: &str, address: &str) -> bool {
    covers(&block.parse().unwrap(), address.parse().unwrap())
}

#[test]
fn a_block_covers_its_first_and_its_last_address_and_not_the_ones_beside_them() {
    for (address, covered) in [
        ("10.1.2.3", false),
        ("10.1.2.4", true),
        ("10.1.2.7", true),
        ("10.1.2.8", false),
    ] {
        assert_eq!(covers_text("10.1.2.4/30", address), covered, "{address}");
    }
    for (address, covered) in [
        ("fd00::3", false),
        ("fd00::4", true),
        ("fd00::7", true),
        ("fd00::8", false),
    ] {
        assert_eq!(covers_text("fd00::4/126", address), covered, "{address}");
    }
}

#[test]
fn the_widest_blocks_cover_their_whole_family_and_nothing_of_the_other() {
    assert!(covers_text("0.0.0.0/0", "255.255.255.255"));
    assert!(covers_text("::/0", "ffff::1"));
    assert!(!covers_text("0.0.0.0/0", "::"));
    assert!(!covers_text("::/0", "10.0.0.1"));
}

#[test]
fn the_narrowest_block_is_one_address() {
    assert!(covers_text("10.0.0.1/32", "10.0.0.1"));
    assert!(!covers_text("10.0.0.1/32", "10.0.0.0"));
    assert!(covers_text("fd00::1/128", "fd00::1"));
    assert!(!covers_text("fd00::1/128", "fd00::"));
}

#[test]
fn an_absent_key_matches_not_in_and_does_not_exist_and_never_in() {
    let labels = Labels::new();
    let key = || "team".to_owned();
    let values = || [String::new()].into();
    let matches = |requirement| {
        selects(
            &Selector {
                requirements: vec![requirement],
            },
            &labels,
        )
    };
    assert!(matches(Requirement::NotIn {
        key: key(),
        values: values()
    }));
    assert!(matches(Requirement::DoesNotExist { key: key() }));
    assert!(!matches(Requirement::In {
        key: key(),
        values: values()
    }));
    assert!(!matches(Requirement::Exists { key: key() }));
}
