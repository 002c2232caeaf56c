/* SPDX-License-Identifier: GPL-2.0 */
/* Trace events of the guest: a request goes to the device, and its answer comes. A queue and a tag say which one it is, as in
 * the host's events. */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM avio_stor

#if !defined(AVIO_TRACE_GUEST_H) || defined(TRACE_HEADER_MULTI_READ)
#define AVIO_TRACE_GUEST_H
#include <linux/device.h>
#include <linux/tracepoint.h>
#include "trace_opcodes.h"

/* It was put into the ring. */
TRACE_EVENT(avio_sent,
	TP_PROTO(const struct device *adapter, u32 queue, u16 tag, u16 lun, u8 opcode, u64 sector),
	TP_ARGS(adapter, queue, tag, lun, opcode, sector),
	TP_STRUCT__entry(
		__string(adapter, dev_name(adapter))
		__field(u32, queue)
		__field(u16, tag)
		__field(u16, lun)
		__field(u8, opcode)
		__field(u64, sector)
	),
	TP_fast_assign(
		__assign_str(adapter);
		__entry->queue = queue;
		__entry->tag = tag;
		__entry->lun = lun;
		__entry->opcode = opcode;
		__entry->sector = sector;
	),
	TP_printk("%s queue=%u tag=%u lun=%u %s sector=%llu", __get_str(adapter), __entry->queue, __entry->tag,
		  __entry->lun, __print_symbolic(__entry->opcode, AVIO_OPCODES), __entry->sector)
);

/* Its answer was taken from the ring; `status` as in abi.md, 6.4. */
TRACE_EVENT(avio_done,
	TP_PROTO(const struct device *adapter, u32 queue, u16 tag, u8 status, u32 bytes),
	TP_ARGS(adapter, queue, tag, status, bytes),
	TP_STRUCT__entry(
		__string(adapter, dev_name(adapter))
		__field(u32, queue)
		__field(u16, tag)
		__field(u8, status)
		__field(u32, bytes)
	),
	TP_fast_assign(
		__assign_str(adapter);
		__entry->queue = queue;
		__entry->tag = tag;
		__entry->status = status;
		__entry->bytes = bytes;
	),
	TP_printk("%s queue=%u tag=%u status=%u bytes=%u", __get_str(adapter), __entry->queue, __entry->tag,
		  __entry->status, __entry->bytes)
);
#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace_guest
#include <trace/define_trace.h>
