//! What is about no flow: losses, what was tampered with, and the types of our own elements.
//!
//! These are options records: a collector that looks for flows alone skips them, and makes no flow without addresses of
//! them.

use super::{
    element::{Element, Get},
    flow::FLOW,
    table::{Group, Own, Table, TemplateSet},
};
use crate::flow::record::{LossRecord, TamperRecord};

/// The first field says of which observation domain it is.
const OF_DOMAIN: TemplateSet = TemplateSet::Options { scope: 1 };

pub(super) static LOSS: Table<LossRecord> = Table {
    name: "loss",
    set: OF_DOMAIN,
    groups: &[
        Group::always(&[
            Element::iana(
                149,
                "observationDomainId",
                Get::U32(|_, context| context.domain),
            ),
            Element::iana(152, "flowStartMilliseconds", Get::Time(|r| r.loss.first)),
            Element::iana(153, "flowEndMilliseconds", Get::Time(|r| r.loss.last)),
            Element::identifier(1, "ringfenceSchemaVersion", Get::U16(|r| r.schema_version)),
            Element::own(3, "ringfenceNode", Get::Text(|r| (&*r.node).into())),
            Element::own(
                70,
                "ringfenceLossStage",
                Get::Text(|r| (&*r.loss.stage).into()),
            ),
            Element::own(
                71,
                "ringfenceLossReason",
                Get::Text(|r| (&*r.loss.reason).into()),
            ),
            Element::count(72, "ringfenceLossCount", Get::U64(|r| r.loss.count)),
        ]),
        Group::of(
            |r| r.seq.is_some(),
            &[Element::identifier(
                2,
                "ringfenceRecordSequence",
                Get::U64(|r| r.seq.unwrap_or_default()),
            )],
        ),
    ],
};

pub(super) static TAMPERING: Table<TamperRecord> = Table {
    name: "tampering",
    set: OF_DOMAIN,
    groups: &[Group::always(&[
        Element::iana(
            149,
            "observationDomainId",
            Get::U32(|_, context| context.domain),
        ),
        Element::iana(
            323,
            "observationTimeMilliseconds",
            Get::Time(|r| r.tampering.at),
        ),
        Element::identifier(1, "ringfenceSchemaVersion", Get::U16(|r| r.schema_version)),
        Element::identifier(2, "ringfenceRecordSequence", Get::U64(|r| r.seq)),
        Element::own(3, "ringfenceNode", Get::Text(|r| (&*r.node).into())),
        Element::own(
            80,
            "ringfenceTamperingHow",
            Get::Text(|r| (&*r.tampering.how).into()),
        ),
        Element::own(
            81,
            "ringfenceTamperingWhat",
            Get::Text(|r| (&*r.tampering.what).into()),
        ),
        Element::count(
            82,
            "ringfenceTamperingCount",
            Get::U64(|r| r.tampering.count),
        ),
        Element::own(
            83,
            "ringfenceTamperingRestored",
            Get::Bool(|r| r.tampering.restored),
        ),
    ])],
};

/// RFC 5610: of each element of our own its type and name, so that a collector needs no list of them.
pub(super) static TYPES: Table<Own> = Table {
    name: "types",
    set: TemplateSet::Options { scope: 2 },
    groups: &[Group::always(&[
        Element::iana(
            346,
            "privateEnterpriseNumber",
            Get::U32(|_, context| context.enterprise),
        ),
        Element::iana(303, "informationElementId", Get::U16(|r| r.number)),
        Element::iana(
            339,
            "informationElementDataType",
            Get::U8(|r, _| r.data_type),
        ),
        Element::iana(
            344,
            "informationElementSemantics",
            Get::U8(|r, _| r.semantics.number()),
        ),
        // None of ours has a unit.
        Element::iana(345, "informationElementUnits", Get::U16(|_| 0)),
        Element::iana(341, "informationElementName", Get::Text(|r| r.name.into())),
    ])],
};

/// All of our own, each once, by number.
pub(super) fn own() -> Vec<Own> {
    let mut own: Vec<Own> = FLOW
        .own()
        .chain(LOSS.own())
        .chain(TAMPERING.own())
        .collect();
    own.sort_by_key(|it| it.number);
    own.dedup_by_key(|it| it.number);
    own
}
