//! The layouts that the kernel and the agent agree on, as text.
//!
//! A difference is a change of the contract: raise `ABI_VERSION`, so that no agent reads the maps
//! of another version, and write the listing anew with `UPDATE_GOLDEN=1`.

use std::{fmt::Write as _, fs, path::Path};

use agent_common::{
    abi::{ABI_VERSION, Abi},
    denial::Denied,
    event::{DenialKey, Event},
    flow::{FlowKey, FlowState},
    process::Process,
    rejection::RejectionCounts,
    table::{Counter, Decision, Endpoint, OwnAddress, PolicyKey, PortKey, SocketKey},
    verdict::Reason,
};

fn describe<T: Abi>(listing: &mut String) {
    writeln!(listing, "\n{} {}", T::NAME, size_of::<T>()).unwrap();
    for field in T::FIELDS {
        writeln!(
            listing,
            "{:4} {:3} {}",
            field.offset, field.size, field.name
        )
        .unwrap();
    }
}

#[test]
fn a_layout_changes_only_with_its_listing() {
    let mut listing = format!("ABI version {ABI_VERSION}\noffset, size, field\n");
    describe::<PolicyKey>(&mut listing);
    describe::<SocketKey>(&mut listing);
    describe::<PortKey>(&mut listing);
    describe::<Decision>(&mut listing);
    describe::<Endpoint>(&mut listing);
    describe::<OwnAddress>(&mut listing);
    describe::<Counter>(&mut listing);
    describe::<FlowKey<[u8; 4]>>(&mut listing);
    describe::<FlowKey<[u8; 16]>>(&mut listing);
    describe::<FlowState>(&mut listing);
    describe::<Process>(&mut listing);
    describe::<Event>(&mut listing);
    describe::<DenialKey>(&mut listing);
    describe::<Denied>(&mut listing);
    describe::<RejectionCounts>(&mut listing);
    listing.push_str("\nReason\n");
    for reason in Reason::ALL {
        writeln!(listing, "{:4} {}", *reason as u8, reason.name()).unwrap();
    }

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("layout.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &listing).unwrap();
    }
    let known = fs::read_to_string(&path).unwrap();
    assert!(known == listing, "the contract has changed:\n{listing}");
}
