//! Has the flow tables know what sockets have counted, see [`agent_common::socket_flow`].

use std::{
    io::{self, Read as _},
    os::fd::{AsFd as _, OwnedFd},
};

use crate::datapath::syscall;

/// Programs that go through the notes of sockets, attached for as long as this lives: one for each family.
#[derive(Debug)]
pub(crate) struct Telling(pub(crate) [OwnedFd; 2]);

impl Telling {
    /// Goes through all of them.
    ///
    /// # Errors
    ///
    /// If the kernel cannot be asked.
    pub(crate) fn tell(&self) -> io::Result<()> {
        let Self(links) = self;
        for link in links {
            let mut iterator = syscall::iterate(link.as_fd())?;
            loop {
                // It writes nothing, and is through with the first answer that is none.
                match iterator.read(&mut [0; 8]) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) if syscall::is_to_be_asked_again(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}
