//! Lines as messages, with the templates by which they are read.

use std::{borrow::Cow, collections::BTreeMap};

use super::{
    element::Context,
    flow::FLOW,
    message::{Counted, HEADER, Message, Packer, SET_HEADER},
    other::{LOSS, TAMPERING, TYPES, own},
    table::{Shape, Table, TemplateSet},
};
use crate::flow::record::Line;

#[derive(Debug)]
pub(super) struct Encoder {
    domain: u32,
    enterprise: u32,
    /// Bytes of a message.
    most: usize,
    templates: BTreeMap<(&'static str, Shape), Template>,
    /// The number of the next one.
    next: u16,
    /// A record in the making.
    record: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Template {
    id: u16,
    set: TemplateSet,
    bytes: Vec<u8>,
}

/// Templates that are kept in mind. A node meets a few dozen shapes, and some thousands could be.
const MOST_TEMPLATES: usize = 512;
/// Those below are no templates' (RFC 7011, §3.4.1).
const FIRST: u16 = 256;
/// How long text is; the less the longer a record would be, so that it fits into a message. One letter is always left.
const TEXTS: [u8; 6] = [LONGEST_TEXT, 127, 63, 31, 15, 4];
/// One byte tells its length.
const LONGEST_TEXT: u8 = 254;

impl Encoder {
    pub(super) fn new(domain: u32, enterprise: u32, most: usize) -> Self {
        Self {
            domain,
            enterprise,
            most,
            templates: BTreeMap::new(),
            next: FIRST,
            record: Vec::new(),
        }
    }

    /// Whether it keeps as many templates in mind as it may. No number has two meanings in one session: those that are forgotten
    /// end it.
    pub(super) fn is_full(&self) -> bool {
        self.templates.len() >= MOST_TEMPLATES
    }

    /// For a session to come.
    pub(super) fn forget(&mut self) {
        self.templates.clear();
        self.next = FIRST;
    }

    /// All templates, and the types of our own elements.
    pub(super) fn templates(&mut self) -> Vec<Message> {
        let types = self.template(&TYPES, TYPES.shape_of_all());
        let mut packer = self.packer();
        for template in self.templates.values() {
            packer.put(template.set.number(), &template.bytes, Counted::Template);
        }
        for element in own() {
            let mut record = Vec::new();
            TYPES.put(&element, TYPES.shape_of_all(), self.context(), &mut record);
            packer.put(types, &record, Counted::Other);
        }
        packer.finish()
    }

    /// Those templates that are new come first, in messages of their own.
    pub(super) fn encode(&mut self, lines: &[Cow<'_, Line>]) -> Vec<Message> {
        let known = self.next;
        let mut data = self.packer();
        for line in lines {
            match &**line {
                Line::Flow(flow) => self.put(&FLOW, flow, Counted::Flow(flow.kind), &mut data),
                Line::Loss(loss) => self.put(&LOSS, loss, Counted::Other, &mut data),
                Line::Tampering(it) => self.put(&TAMPERING, it, Counted::Other, &mut data),
            }
        }
        let mut packer = self.packer();
        let is_new = |template: &&Template| template.id >= known;
        for template in self.templates.values().filter(is_new) {
            packer.put(template.set.number(), &template.bytes, Counted::Template);
        }
        let mut messages = packer.finish();
        messages.extend(data.finish());
        messages
    }

    fn put<R>(
        &mut self,
        table: &'static Table<R>,
        record: &R,
        counted: Counted,
        packer: &mut Packer,
    ) {
        let shape = table.shape(record);
        let id = self.template(table, shape);
        let room = self.most.saturating_sub(HEADER + SET_HEADER);
        let mut bytes = std::mem::take(&mut self.record);
        for text in TEXTS {
            bytes.clear();
            let context = Context {
                text,
                ..self.context()
            };
            table.put(record, shape, context, &mut bytes);
            if bytes.len() <= room {
                break;
            }
        }
        packer.put(id, &bytes, counted);
        self.record = bytes;
    }

    /// The number of the template for this shape.
    fn template<R>(&mut self, table: &'static Table<R>, shape: Shape) -> u16 {
        if let Some(known) = self.templates.get(&(table.name, shape)) {
            return known.id;
        }
        let id = self.next;
        // No batch has so many lines that this could be the last one.
        self.next = id.saturating_add(1);
        let template = Template {
            id,
            set: table.set,
            bytes: table.template(shape, id, self.context()),
        };
        self.templates.insert((table.name, shape), template);
        id
    }

    fn packer(&self) -> Packer {
        Packer::new(self.domain, self.most)
    }

    fn context(&self) -> Context {
        Context {
            domain: self.domain,
            enterprise: self.enterprise,
            text: LONGEST_TEXT,
        }
    }
}
