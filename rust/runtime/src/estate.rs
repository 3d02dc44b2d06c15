//! The memory of a machine as its agent has it: descriptors of its segments, which its workers get over their control sockets,
//! and the exchange with other machines. What is done with them the broker says.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use headrace_protocol::broker::{CopyPart, SegmentNews};
use headrace_sys::zmq::Library;
use headrace_wire::{BLOCK_ALIGN, Estate as Message, EstateKind, Event, EventKind, Transfer};

use crate::broker::Children;
use crate::exchange::{CopyJob, Exchange, ExchangeError};

/// Descriptors of segments, and who else is told of them.
pub(crate) struct Tracts {
    files: HashMap<u32, Arc<File>>,
    /// Where there are other machines.
    pub(crate) exchange: Option<Exchange>,
}

impl Tracts {
    pub(crate) fn new(exchange: Option<Exchange>) -> Self {
        Tracts { files: HashMap::new(), exchange }
    }

    /// From now on there are other machines. No segment here is for copies yet.
    pub(crate) fn exchange_by(&mut self, exchange: Exchange) {
        self.files.iter().for_each(|(segment, file)| exchange.enter(*segment, Arc::clone(file), false));
        self.exchange = Some(exchange);
    }

    /// Makes a segment of memory.
    pub(crate) fn make(&mut self, segment: u32, bytes: u64, is_copy: bool) -> io::Result<()> {
        let file = Arc::new(File::from(headrace_sys::segment::create(bytes)?));
        self.enter(segment, file, is_copy);
        Ok(())
    }

    /// A segment is there.
    pub(crate) fn enter(&mut self, segment: u32, file: Arc<File>, is_copy: bool) {
        if let Some(exchange) = &self.exchange {
            exchange.enter(segment, Arc::clone(&file), is_copy);
        }
        self.files.insert(segment, file);
    }

    pub(crate) fn get(&self, segment: u32) -> Option<Arc<File>> {
        self.files.get(&segment).cloned()
    }

    /// A descriptor to give away. Without one, the receiver knows that it has none.
    pub(crate) fn descriptor(&self, segment: u32) -> Option<OwnedFd> {
        self.files.get(&segment)?.try_clone().ok().map(OwnedFd::from)
    }

    /// Closes the last descriptor of a segment; so many bytes go back to the system first.
    pub(crate) fn close(&mut self, segment: u32, discard: u64) {
        if let Some(exchange) = &self.exchange {
            exchange.leave(segment);
        }
        if let Some(file) = self.files.remove(&segment)
            && discard > 0
        {
            // If it fails, the pages go with the last map.
            let _ = headrace_sys::segment::discard(&*file, discard);
        }
    }
}

/// The memory of an agent's machine.
pub(crate) struct Estate {
    limit: u64,
    /// The address by which the broker's machine knows this one, and the other way round.
    broker_host: String,
    tracts: Tracts,
}

impl Estate {
    /// Memory for so many bytes of results; none yet.
    pub(crate) fn open(library: &Arc<Library>, broker: &str, limit: u64) -> Result<Self, ExchangeError> {
        let broker_host = host_of(broker);
        let address = own_address(broker)?;
        let exchange = Exchange::start(library, &address)?;
        Ok(Estate { limit, broker_host, tracts: Tracts::new(Some(exchange)) })
    }

    /// What the broker is told of it.
    pub(crate) fn place(&self) -> (u64, String) {
        let exchange = self.exchange();
        (self.limit, format!("{} {}", exchange.endpoint, exchange.key))
    }

    pub(crate) fn exchange(&self) -> &Exchange {
        self.tracts.exchange.as_ref().expect("an agent has one")
    }

    /// Does what the broker says. What is to be told of it goes to `tell`.
    pub(crate) fn obey(&mut self, message: &Message<'_>, children: &mut Children, mut tell: impl FnMut(Event<'_>)) {
        let Message { kind, worker, segment, bytes, text } = *message;
        let news = match EstateKind::try_from(kind) {
            Ok(kind @ (EstateKind::Granted | EstateKind::Made)) => {
                let made = self.tracts.make(segment, bytes, kind == EstateKind::Made);
                let why = made
                    .err()
                    .map(|error| format!("a segment of {bytes} bytes of shared memory cannot be made: {error}"));
                if let Some(text) = &why {
                    let kind = EventKind::NoSegment as u8;
                    tell(Event { kind, number: segment, text: text.as_bytes(), ..Event::default() });
                }
                match (kind, why) {
                    (EstateKind::Made, _) => return,
                    (_, Some(text)) => SegmentNews::Refused { text },
                    (_, None) => SegmentNews::Granted { segment, bytes },
                }
            }
            Ok(EstateKind::Shared) => SegmentNews::Shared { segment, bytes },
            Ok(EstateKind::Refused) => SegmentNews::Refused { text: text.to_owned() },
            Ok(EstateKind::Dropped) => SegmentNews::Dropped { segment },
            Ok(EstateKind::Closed) => return self.tracts.close(segment, bytes),
            // A newer broker knows it.
            Err(_) => return,
        };
        let fd = match &news {
            SegmentNews::Granted { segment, .. } | SegmentNews::Shared { segment, .. } => {
                self.tracts.descriptor(*segment)
            }
            SegmentNews::Refused { .. } | SegmentNews::Dropped { .. } => None,
        };
        children.tell_of_segment(worker, &news, fd);
    }

    /// Copies blocks from another machine.
    pub(crate) fn fetch(&self, transfer: &Transfer<'_>) {
        let bytes = |units: u32| u64::from(units) * BLOCK_ALIGN;
        let from = transfer.from_segment.iter().zip(transfer.from_offset.iter().map(bytes));
        let to = transfer.to_segment.iter().zip(transfer.to_offset.iter().map(bytes));
        let blocks = from.zip(to).zip(transfer.length.iter().map(bytes));
        let parts = blocks.map(|((from, to), bytes)| CopyPart { from, to, bytes }).collect();
        let endpoint = match transfer.endpoint.strip_prefix("tcp://:") {
            Some(port) => format!("tcp://{}:{port}", self.broker_host),
            None => transfer.endpoint.to_owned(),
        };
        self.exchange().copy(CopyJob { number: transfer.job, endpoint, key: transfer.key.to_owned(), parts });
    }
}

const HERE: &str = "127.0.0.1";

/// The host of an endpoint in the network.
fn host_of(endpoint: &str) -> String {
    let host = endpoint.strip_prefix("tcp://").and_then(|place| place.rsplit_once(':')).map(|(host, _)| host);
    host.unwrap_or(HERE).to_owned()
}

/// The address of this machine on the way to the broker. Nothing is sent for that.
fn own_address(broker: &str) -> io::Result<String> {
    let Some(place) = broker.strip_prefix("tcp://") else { return Ok(HERE.to_owned()) };
    let found = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect(place)?;
        socket.local_addr()
    });
    found.map(|address| address.ip().to_string())
}
