/* SPDX-License-Identifier: GPL-2.0 */
/* C that Rust cannot call itself (inline functions, macros, static data), for the guest driver. No logic here. */
#ifndef AVIO_SHIM_GUEST_H
#define AVIO_SHIM_GUEST_H
#include <linux/blk-mq.h>

/* Physical address of memory in the kernel's linear map. */
phys_addr_t avio_virt_to_phys(const void *addr);

/* The run of contiguous memory at a position in a request's data, and on to the next; false at the end. */
bool avio_rq_next_run(struct bio **bio, struct bvec_iter *iter, phys_addr_t *addr, unsigned int *len);

/* Puts a completed request into a batch; false if it must be ended on its own. */
bool avio_rq_add_to_batch(struct request *rq, struct io_comp_batch *batch, bool is_error);

/* Values of macros. */
blk_features_t avio_blk_feat_write_cache(void);
blk_features_t avio_blk_feat_fua(void);
blk_features_t avio_blk_feat_stable_writes(void);

/* A number that no other disk (kind 0) or adapter (kind 1) of this driver has, and back with it. */
int avio_index_get(unsigned int kind);
void avio_index_put(unsigned int kind, unsigned int index);

/* Keeps the block layer from looking for partitions of a disk; looks for them after all, or, if the disk cannot be opened
 * now, has whoever opens it next do so. For a kernel thread. */
void avio_disk_hold_partitions(struct gendisk *disk);
void avio_disk_find_partitions(struct gendisk *disk);

/* Gives a disk in use those limits of some kinds that differ, whatever its requests do. -EAGAIN while somebody else changes
 * them. */
int avio_disk_set_limits(struct gendisk *disk, const struct queue_limits *from, const struct queue_limits *to);

/* Has whoever opens the disk next look for partitions first, and tells user space that there is something to see. */
void avio_disk_rescan(struct gendisk *disk);

/* Attributes of a disk whose private data begins with three C strings, each in so many bytes: serial, wwid, lun. */
#define AVIO_TEXT 64
const struct attribute_group **avio_disk_attributes(void);

/* Allocations of the current thread between these two start no I/O. */
unsigned int avio_noio_save(void);
void avio_noio_restore(unsigned int before);

/* Trace events (trace_guest.h). */
void avio_trace_sent(const struct device *adapter, u32 queue, u16 tag, u16 lun, u8 opcode, u64 sector);
void avio_trace_done(const struct device *adapter, u32 queue, u16 tag, u8 status, u32 bytes);

/* The processor. */
bool avio_alone(void);
bool avio_current_is_idle(void);
#endif
