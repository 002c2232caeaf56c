/* SPDX-License-Identifier: GPL-2.0 */
/* Trace events of the host: what becomes of a request, from the ring to its answer. `adapter` is the number of its file in
 * debugfs; a queue and a tag say which request it is, as in the guest's events. */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM avio_host

#if !defined(AVIO_TRACE_HOST_H) || defined(TRACE_HEADER_MULTI_READ)
#define AVIO_TRACE_HOST_H
#include <linux/tracepoint.h>
#include "trace_opcodes.h"

/* It was taken from the ring. What it says was not checked yet. */
TRACE_EVENT(avio_taken,
	TP_PROTO(u32 adapter, u32 queue, u16 tag, u16 lun, u8 opcode, u64 sector),
	TP_ARGS(adapter, queue, tag, lun, opcode, sector),
	TP_STRUCT__entry(
		__field(u32, adapter)
		__field(u32, queue)
		__field(u16, tag)
		__field(u16, lun)
		__field(u8, opcode)
		__field(u64, sector)
	),
	TP_fast_assign(
		__entry->adapter = adapter;
		__entry->queue = queue;
		__entry->tag = tag;
		__entry->lun = lun;
		__entry->opcode = opcode;
		__entry->sector = sector;
	),
	TP_printk("stor%u queue=%u tag=%u lun=%u %s sector=%llu", __entry->adapter, __entry->queue, __entry->tag,
		  __entry->lun, __print_symbolic(__entry->opcode, AVIO_OPCODES), __entry->sector)
);

/* It is given to the block layer: limits that held it back do so no more. */
TRACE_EVENT(avio_submitted,
	TP_PROTO(u32 adapter, u32 queue, u16 tag, u32 bytes),
	TP_ARGS(adapter, queue, tag, bytes),
	TP_STRUCT__entry(
		__field(u32, adapter)
		__field(u32, queue)
		__field(u16, tag)
		__field(u32, bytes)
	),
	TP_fast_assign(
		__entry->adapter = adapter;
		__entry->queue = queue;
		__entry->tag = tag;
		__entry->bytes = bytes;
	),
	TP_printk("stor%u queue=%u tag=%u bytes=%u", __entry->adapter, __entry->queue, __entry->tag, __entry->bytes)
);

/* It is answered; `status` as in abi.md, 6.4. */
TRACE_EVENT(avio_answered,
	TP_PROTO(u32 adapter, u32 queue, u16 tag, u8 status, u32 bytes),
	TP_ARGS(adapter, queue, tag, status, bytes),
	TP_STRUCT__entry(
		__field(u32, adapter)
		__field(u32, queue)
		__field(u16, tag)
		__field(u8, status)
		__field(u32, bytes)
	),
	TP_fast_assign(
		__entry->adapter = adapter;
		__entry->queue = queue;
		__entry->tag = tag;
		__entry->status = status;
		__entry->bytes = bytes;
	),
	TP_printk("stor%u queue=%u tag=%u status=%u bytes=%u", __entry->adapter, __entry->queue, __entry->tag,
		  __entry->status, __entry->bytes)
);
#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace_host
#include <trace/define_trace.h>
