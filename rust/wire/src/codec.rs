//! Messages as arrays of fields.
//!
//! [`Field`] says how one field travels; one `body!` line for each message names its fields in the order in which they
//! travel, and one `messages!` table gives each message its number. A field of the first version is required. A field
//! that is appended later stands behind `later`, and takes its default where an older peer did not send it.

use crate::columns::{Blobs, U32s};
use crate::error::DecodeError;
use crate::message::*;
use crate::msgpack::{self, Fault, Reader};

/// The longest head of a msgpack value: a marker and eight bytes.
const HEAD_BYTES_MAX: usize = 9;

/// Something that travels as one or two msgpack values.
trait Field<'a>: Sized {
    /// How many values it takes.
    const VALUES: u32 = 1;

    /// Bytes behind the heads of its values.
    fn body_bytes(&self) -> usize {
        0
    }

    fn write(&self, out: &mut Vec<u8>);

    fn read(reader: &mut Reader<'a>) -> Result<Self, Fault>;
}

/// The fields of a message, in order.
pub(crate) trait Body<'a>: Sized {
    /// Name of the message, for error texts.
    const NAME: &'static str;

    /// How many msgpack values the fields are.
    fn values(&self) -> u32;

    /// An upper bound of what [`Body::write`] appends, wrong by a few bytes a field at most.
    fn bytes_max(&self) -> usize;

    fn write(&self, out: &mut Vec<u8>);

    fn read(fields: &mut Fields<'a>) -> Result<Self, DecodeError>;
}

/// The fields of a message that have not been read yet.
pub(crate) struct Fields<'a> {
    reader: Reader<'a>,
    values_left: u32,
}

impl<'a> Fields<'a> {
    fn required<T: Field<'a>>(&mut self, message: &'static str, field: &'static str) -> Result<T, DecodeError> {
        self.values_left = self.values_left.checked_sub(T::VALUES).ok_or(DecodeError::Missing { message, field })?;
        T::read(&mut self.reader).map_err(|fault| match fault {
            Fault::Truncated => DecodeError::Truncated,
            Fault::Expected(expected) => DecodeError::Malformed { message, field, expected },
        })
    }

    fn later<T: Field<'a> + Default>(&mut self, message: &'static str, field: &'static str) -> Result<T, DecodeError> {
        if self.values_left == 0 { Ok(T::default()) } else { self.required(message, field) }
    }

    /// Passes over what this version does not know.
    fn finish(&mut self) -> Result<(), DecodeError> {
        self.reader.skip(self.values_left)?;
        match self.reader.remaining() {
            0 => Ok(()),
            bytes => Err(DecodeError::Trailing(bytes)),
        }
    }
}

macro_rules! body {
    ($name:ident $(<$life:lifetime>)? { $($field:ident),+ } $(later { $($later:ident),+ })?) => {
        impl<'a> Body<'a> for $name $(<$life>)? {
            const NAME: &'static str = stringify!($name);

            fn values(&self) -> u32 {
                0 $(+ values(&self.$field))+ $($(+ values(&self.$later))+)?
            }

            fn bytes_max(&self) -> usize {
                0 $(+ bytes_max(&self.$field))+ $($(+ bytes_max(&self.$later))+)?
            }

            fn write(&self, out: &mut Vec<u8>) {
                $(self.$field.write(out);)+
                $($(self.$later.write(out);)+)?
            }

            fn read(fields: &mut Fields<'a>) -> Result<Self, DecodeError> {
                Ok(Self {
                    $($field: fields.required(Self::NAME, stringify!($field))?,)+
                    $($($later: fields.later(Self::NAME, stringify!($later))?,)+)?
                })
            }
        }
    };
}

body!(Hello<'a> { protocol, role, version, python, features, worker, incarnation, pid });
body!(Welcome<'a> { protocol, version, features, session, result_bytes_max });
body!(Goodbye<'a> { reason, text });
body!(Heartbeat { number, finished });
body!(Submit<'a> {
    run, first, flags, function_ids, function_names, functions, function_map, task_function, dep_counts, deps,
    external_run, external_index, args, task_options, priority, worker, key_index, keys, keep
} later {
    policies, deadline_ms, run_priority, parent, parent_attempt
});
body!(Results<'a> { run, finished, index, outcome, values, ended });
body!(Hold<'a> { run, add, remove, release_run });
body!(Cancel<'a> { run, whole, index } later { spare_leased });
body!(Query { run, number });
body!(State<'a> {
    run, number, waiting, ready, leased, done, failed, skipped, cancelled, first_lease_ns, elapsed_ns,
    worker, worker_pid, worker_finished, worker_busy_ms,
    lease_frames, report_frames, stale_reports, recalls, worker_deaths, bytes_held, tasks_held
} later {
    store_limit, store_owned, store_peak, store_mapped, store_inline, store_spilled, largest, largest_bytes, retries,
    timeouts, oom_deaths, blamed_deaths, workers_retired, things, thing_tags, thing_amounts
});
body!(Log<'a> { worker, stream, text } later { run, index, attempt, before });
body!(Lease<'a> {
    frame, dead, function_ids, function_names, functions, value_task, values, task, attempt, function, flags, index,
    dep_counts, deps, args, key_position, keys
} later {
    timeout_ms, failures
});
body!(Report<'a> { task, attempt, verdict, values, timed_function, timed_calls, timed_ns });
body!(Recall<'a> { task, attempt, fetch });
body!(Revoke<'a> { task, attempt });
body!(Forget<'a> { dead });
body!(Put<'a> { index, value });
body!(Want { bytes });
body!(Withdraw { bytes });
body!(Lack { segment });
body!(Release<'a> { segment, offset, citations });
body!(Released<'a> { segment, offset });
body!(GiveBack<'a> { segment, pages } later { urgency });
body!(Moved<'a> { run, index, values });
body!(Death<'a> { worker, pid, signal, exit_code, attempts, limit, stderr } later {
    cause, memory_limit, memory_peak, group_others, workers, pids, signals, exit_codes, causes, key
});
body!(Policy<'a> {
    retries, flags, backoff_ms, backoff_max_ms, timeout_ms, queue_timeout_ms, resources, amounts, tags
});
body!(Overrun<'a> { queued, worker, attempt, limit_ms } later { failures, key });
body!(Waiting { task, attempt, waits, run, index, helps });
body!(Standstill<'a> { task, attempt, text });
body!(Overdue { task, attempt });
body!(Why<'a> { number, run, index, key, stacks });
body!(Because<'a> { number, state, worker, pid, attempt, since_ms, text, stacks });
body!(Order { kind, worker, incarnation, task, attempt });
body!(Event<'a> { kind, worker, incarnation, number, task, attempt, text });
body!(Estate<'a> { kind, worker, segment, bytes, text });
body!(Transfer<'a> { job, endpoint, key, from_segment, from_offset, to_segment, to_offset, length });
body!(Neighbour<'a> { key, left });

macro_rules! messages {
    ($($name:ident = $number:literal),+ $(,)?) => {
        impl<'a> Message<'a> {
            /// Number of the message's type, the first value of its frame.
            pub fn type_number(&self) -> u8 {
                match self {
                    $(Message::$name(_) => $number,)+
                }
            }

            /// Name of the message's type, for error texts.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Message::$name(_) => stringify!($name),)+
                }
            }

            /// Appends the message as one frame.
            ///
            /// # Panics
            /// If a column is 4 GiB or longer. Debug builds also panic on a message that its own decoder would refuse.
            pub fn encode(&self, out: &mut Vec<u8>) {
                debug_assert_eq!(self.check(), Ok(()));
                match self {
                    $(Message::$name(body) => encode_body($number, body, out),)+
                }
            }

            /// Reads one frame. Columns are borrowed from it; nothing is allocated.
            ///
            /// # Errors
            /// [`DecodeError::UnknownType`] for a well-formed message that a newer peer may send and this version may
            /// ignore; anything else means that the peer does not speak the protocol.
            pub fn decode(frame: &'a [u8]) -> Result<Self, DecodeError> {
                let mut reader = Reader::new(frame);
                let values = reader.array_len()?.checked_sub(1).ok_or(DecodeError::NotAMessage)?;
                let number = reader.uint()?;
                let mut fields = Fields { reader, values_left: values };
                let message = match number {
                    $($number => Message::$name(Body::read(&mut fields)?),)+
                    unknown => {
                        fields.finish()?;
                        return Err(DecodeError::UnknownType(unknown));
                    }
                };
                fields.finish()?;
                message.check()?;
                Ok(message)
            }

            /// Whether the fields agree with each other.
            fn check(&self) -> Result<(), DecodeError> {
                match self {
                    $(Message::$name(body) => crate::check::Check::check(body),)+
                }
            }
        }
    };
}

messages! {
    Hello = 1,
    Welcome = 2,
    Goodbye = 3,
    Heartbeat = 4,
    Submit = 10,
    Results = 11,
    Hold = 12,
    Cancel = 13,
    Query = 14,
    State = 15,
    Log = 16,
    Put = 17,
    Lease = 20,
    Report = 21,
    Recall = 22,
    Revoke = 23,
    Forget = 24,
    Want = 25,
    Release = 26,
    Released = 27,
    GiveBack = 28,
    Moved = 29,
    Death = 30,
    Policy = 31,
    Overrun = 32,
    Overdue = 33,
    Withdraw = 34,
    Lack = 35,
    Waiting = 36,
    Standstill = 37,
    Why = 40,
    Because = 41,
    Order = 50,
    Event = 51,
    Estate = 52,
    Transfer = 53,
    Neighbour = 54,
}

fn encode_body<'a>(number: u8, body: &impl Body<'a>, out: &mut Vec<u8>) {
    out.reserve(2 * HEAD_BYTES_MAX + body.bytes_max());
    msgpack::write_array_len(1 + body.values(), out);
    msgpack::write_uint(number.into(), out);
    body.write(out);
}

fn values<'a, T: Field<'a>>(_: &T) -> u32 {
    T::VALUES
}

fn bytes_max<'a, T: Field<'a>>(field: &T) -> usize {
    T::VALUES as usize * HEAD_BYTES_MAX + field.body_bytes()
}

impl<'a> Field<'a> for u64 {
    fn write(&self, out: &mut Vec<u8>) {
        msgpack::write_uint(*self, out);
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        reader.uint()
    }
}

impl<'a> Field<'a> for u32 {
    fn write(&self, out: &mut Vec<u8>) {
        msgpack::write_uint((*self).into(), out);
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        reader.uint()?.try_into().map_err(|_| Fault::Expected("an integer below 2^32"))
    }
}

impl<'a> Field<'a> for u8 {
    fn write(&self, out: &mut Vec<u8>) {
        msgpack::write_uint((*self).into(), out);
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        reader.uint()?.try_into().map_err(|_| Fault::Expected("an integer below 256"))
    }
}

impl<'a> Field<'a> for i32 {
    fn write(&self, out: &mut Vec<u8>) {
        msgpack::write_sint((*self).into(), out);
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        reader.sint()?.try_into().map_err(|_| Fault::Expected("an integer of 32 bits"))
    }
}

impl<'a> Field<'a> for bool {
    fn write(&self, out: &mut Vec<u8>) {
        msgpack::write_boolean(*self, out);
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        reader.boolean()
    }
}

impl<'a> Field<'a> for Role {
    fn write(&self, out: &mut Vec<u8>) {
        msgpack::write_uint(*self as u64, out);
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        u8::read(reader)?.try_into().map_err(|_| Fault::Expected("a known role"))
    }
}

impl<'a> Field<'a> for &'a str {
    fn body_bytes(&self) -> usize {
        self.len()
    }

    fn write(&self, out: &mut Vec<u8>) {
        msgpack::write_str(self, out);
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        reader.str()
    }
}

impl<'a> Field<'a> for &'a [u8] {
    fn body_bytes(&self) -> usize {
        self.len()
    }

    fn write(&self, out: &mut Vec<u8>) {
        msgpack::write_bin_len(self.len(), out);
        out.extend_from_slice(self);
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        reader.bin()
    }
}

impl<'a> Field<'a> for U32s<'a> {
    fn body_bytes(&self) -> usize {
        4 * self.len()
    }

    fn write(&self, out: &mut Vec<u8>) {
        msgpack::write_bin_len(4 * self.len(), out);
        self.append_to(out);
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        U32s::from_le_bytes(reader.bin()?).ok_or(Fault::Expected("a column of four-byte words"))
    }
}

impl<'a> Field<'a> for Blobs<'a> {
    const VALUES: u32 = 2;

    fn body_bytes(&self) -> usize {
        self.lens.body_bytes() + self.bytes.len()
    }

    fn write(&self, out: &mut Vec<u8>) {
        debug_assert_eq!(self.lens.sum(), self.bytes.len() as u64, "a blob column's lengths and bytes differ");
        self.lens.write(out);
        self.bytes.write(out);
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        let blobs = Blobs { lens: U32s::read(reader)?, bytes: reader.bin()? };
        match blobs.lens.sum() == blobs.bytes.len() as u64 {
            true => Ok(blobs),
            false => Err(Fault::Expected("as long as its lengths say")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of three versions, as three peers know it.
    #[derive(PartialEq, Debug)]
    struct First<'a> {
        number: u32,
        name: &'a str,
    }

    #[derive(PartialEq, Debug)]
    struct Third<'a> {
        number: u32,
        name: &'a str,
        flags: u64,
        values: Blobs<'a>,
    }

    body!(First<'a> { number, name });
    body!(Third<'a> { number, name } later { flags, values });

    fn read<'a, T: Body<'a>>(frame: &'a [u8]) -> Result<T, DecodeError> {
        let mut reader = Reader::new(frame);
        let values_left = reader.array_len()? - 1;
        reader.uint()?;
        let mut fields = Fields { reader, values_left };
        let body = T::read(&mut fields)?;
        fields.finish()?;
        Ok(body)
    }

    fn written<'a>(body: &impl Body<'a>) -> Vec<u8> {
        let mut frame = Vec::new();
        encode_body(9, body, &mut frame);
        frame
    }

    #[test]
    fn a_new_reader_gives_defaults_to_what_an_old_writer_did_not_send() {
        let frame = written(&First { number: 4, name: "ada" });
        assert_eq!(read(&frame), Ok(Third { number: 4, name: "ada", flags: 0, values: Blobs::default() }));
    }

    #[test]
    fn an_old_reader_skips_what_a_new_writer_sent() {
        let values = Blobs { lens: U32s::Words(&[1, 2]), bytes: b"abb" };
        let frame = written(&Third { number: 4, name: "ada", flags: 1 << 40, values });
        assert_eq!(read(&frame), Ok(First { number: 4, name: "ada" }));
    }

    #[test]
    fn a_later_column_of_blobs_does_not_arrive_by_half() {
        let frame = [0x95, 9, 4, 0xa0, 1, 0xc4, 0];
        assert_eq!(read::<Third<'_>>(&frame), Err(DecodeError::Missing { message: "Third", field: "values" }));
    }

    #[test]
    fn a_frame_is_reserved_once_and_nearly_exactly() {
        let words: Vec<u32> = (0..10_000).collect();
        let frame = written(&Forget { dead: U32s::Words(&words) });
        assert!(frame.capacity() - frame.len() < 3 * HEAD_BYTES_MAX, "{} of {}", frame.len(), frame.capacity());
    }
}
