//! Serving bytes to other machines. It keeps nothing but requests for what is on its way here.

use std::collections::{HashMap, VecDeque};
use std::os::fd::RawFd;
use std::sync::Arc;

use headrace_sys::segment::Segment;
use headrace_sys::zmq::{Router, RoutingId, SendError, ZmqError};

use super::chunk::{CHUNK_BYTES, GONE, HERE, REQUEST_BYTES, Request};
use super::{FRAMES_A_TURN, Tract};

/// Requests of all readers that may wait for bytes; those beyond are told that there is nothing, and ask again.
const PARKED_MAX: usize = 4_096;

struct Reply {
    peer: RoutingId,
    request: Request,
    how: u8,
    map: Option<Arc<Segment>>,
}

pub(super) struct Server {
    router: Router,
    parked: Vec<(RoutingId, Request)>,
    /// Replies that the socket did not take.
    unsent: VecDeque<Reply>,
}

impl Server {
    pub(super) fn new(router: Router) -> Self {
        Server { router, parked: Vec::new(), unsent: VecDeque::new() }
    }

    /// Answers what has come; and what has waited, if there may be news of it.
    pub(super) fn turn(&mut self, segments: &HashMap<u32, Tract>, has_news: bool) -> Result<(), ZmqError> {
        while let Some(reply) = self.unsent.pop_front() {
            if let Some(reply) = self.send(reply) {
                self.unsent.push_front(reply);
                break;
            }
        }
        if has_news {
            for (peer, request) in std::mem::take(&mut self.parked) {
                self.answer(peer, request, segments);
            }
        }
        for _ in 0..FRAMES_A_TURN {
            let Some((peer, frame)) = self.router.try_recv()? else { break };
            if let Some((request, [])) = Request::read(&frame) {
                self.answer(peer, request, segments);
            }
        }
        Ok(())
    }

    /// A segment is gone: nothing more will come of it.
    pub(super) fn forget(&mut self, segment: u32) {
        for (peer, request) in std::mem::take(&mut self.parked) {
            match request.segment == segment {
                true => self.reply(peer, request, GONE, None),
                false => self.parked.push((peer, request)),
            }
        }
    }

    fn answer(&mut self, peer: RoutingId, request: Request, segments: &HashMap<u32, Tract>) {
        let Some(tract) = segments.get(&request.segment).filter(|_| request.len <= CHUNK_BYTES) else {
            return self.reply(peer, request, GONE, None);
        };
        let Some(end) = request.offset.checked_add(request.len.into()) else { return };
        let is_there = tract.present.as_ref().is_none_or(|present| present.contain(&(request.offset..end)));
        if is_there {
            self.reply(peer, request, HERE, Some(tract));
        } else if self.parked.len() < PARKED_MAX {
            self.parked.push((peer, request));
        } else {
            self.reply(peer, request, GONE, None);
        }
    }

    fn reply(&mut self, peer: RoutingId, request: Request, how: u8, tract: Option<&Tract>) {
        let reply = Reply { peer, request, how, map: None };
        let reply = match tract.map(Tract::map) {
            Some(Some(map)) if request.offset + u64::from(request.len) <= map.len() => {
                Reply { map: Some(map), ..reply }
            }
            Some(_) => Reply { how: GONE, ..reply },
            None => reply,
        };
        if let Some(reply) = self.send(reply) {
            self.unsent.push_back(reply);
        }
    }

    /// The reply, if the socket does not take it now.
    fn send(&mut self, reply: Reply) -> Option<Reply> {
        let mut head = Vec::with_capacity(REQUEST_BYTES + 1);
        reply.request.write(&mut head);
        head.push(reply.how);
        let sent = match &reply.map {
            Some(map) => {
                let Request { offset, len, .. } = reply.request;
                self.router.send_mapped(&reply.peer, &head, map, offset, len as usize)
            }
            None => self.router.send(&reply.peer, &mut head),
        };
        matches!(sent, Err(SendError::WouldBlock)).then_some(reply)
    }

    pub(super) fn is_blocked(&self) -> bool {
        !self.unsent.is_empty()
    }

    pub(super) fn has_input(&mut self) -> bool {
        self.router.has_input().unwrap_or(false)
    }

    pub(super) fn fd(&self) -> RawFd {
        self.router.fd()
    }
}
