//! How messages are read: a filter with a field that the description lacks is refused.
//!
//! By the rules of protobuf the field would be passed over, and a filter that is empty without it takes everything: whoever
//! has asked by a field that is newer than this would be shown what it was to keep back.

use std::marker::PhantomData;

use prost::{Message, Name};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder},
};
use tonic_prost::ProstCodec;

use crate::{observer::GetFlowsRequest, schema::SCHEMA, wire};

/// Of a request's fields, its filters.
const BLACKLIST: u32 = 5;
const WHITELIST: u32 = 6;

#[derive(Debug)]
pub struct Strict<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Strict<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for Strict<T, U>
where
    T: Message + Send + 'static,
    U: Message + Name + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = StrictDecoder<<ProstCodec<T, U> as Codec>::Decoder>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::default().encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        StrictDecoder(ProstCodec::<T, U>::default().decoder())
    }
}

#[derive(Debug)]
pub struct StrictDecoder<D>(D);

impl<D> Decoder for StrictDecoder<D>
where
    D: Decoder<Error = Status>,
    D::Item: Name,
{
    type Item = D::Item;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        use prost::bytes::Buf as _;
        if D::Item::full_name() == GetFlowsRequest::full_name() {
            // In one piece, as tonic hands it over.
            check(bytes.chunk())?;
        }
        self.0.decode(bytes)
    }
}

fn check(mut request: &[u8]) -> Result<(), Status> {
    while let Some((field, rest)) = wire::next(request) {
        request = rest;
        let filter = matches!(field.number, BLACKLIST | WHITELIST).then_some(field.content);
        let filter = filter.flatten().unwrap_or_default();
        if let Some(number) = SCHEMA.unknown(".flow.FlowFilter", filter) {
            return Err(Status::invalid_argument(format!(
                "a filter has field {number}, which is not known here: it cannot be judged"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{EventTypeFilter, FlowFilter, NetworkInterface, TcpFlags, Workload};

    fn with_filter(number: u32, filter: &[u8]) -> Vec<u8> {
        let mut request = GetFlowsRequest {
            number: u64::MAX,
            ..GetFlowsRequest::default()
        }
        .encode_to_vec();
        wire::put(number, filter, &mut request);
        request
    }

    #[test]
    fn what_is_known_is_read() {
        let filter = FlowFilter {
            source_pod: vec!["shop/".to_owned()],
            event_type: vec![EventTypeFilter {
                r#type: 4,
                match_sub_type: true,
                sub_type: 11,
            }],
            tcp_flags: vec![TcpFlags {
                syn: true,
                ..TcpFlags::default()
            }],
            source_workload: vec![Workload::default()],
            interface: vec![NetworkInterface {
                index: 7,
                name: "a".to_owned(),
            }],
            reply: vec![false],
            source_identity: vec![2, 300],
            experimental: Some(Default::default()),
            ..FlowFilter::default()
        };
        for number in [BLACKLIST, WHITELIST] {
            check(&with_filter(number, &filter.encode_to_vec())).unwrap();
        }
        check(&[]).unwrap();
    }

    #[test]
    fn a_filter_of_a_newer_description_is_refused_and_a_request_is_not() {
        let mut newer = FlowFilter::default().encode_to_vec();
        wire::put(41, b"x", &mut newer);
        for number in [BLACKLIST, WHITELIST] {
            let error = check(&with_filter(number, &newer)).unwrap_err();
            assert!(error.message().contains("field 41"), "{error}");
        }
        let mut inner = Vec::new();
        wire::put(6, &[0x20, 1], &mut inner);
        let error = check(&with_filter(WHITELIST, &inner)).unwrap_err();
        assert!(error.message().contains("field 4"), "{error}");
        // Beside the filters there may be anything.
        check(&with_filter(150_000, &newer)).unwrap();
    }
}
