// SPDX-License-Identifier: GPL-2.0
#include "shim_host.h"
#include <linux/blk-mq.h>
#include <linux/pagemap.h>

struct block_device *avio_file_bdev(struct file *file)
{
	if (!S_ISBLK(file_inode(file)->i_mode) || !(file->f_mode & FMODE_READ))
		return NULL;
	return file_bdev(file);
}

bool avio_bdev_forget_cache(struct block_device *bdev)
{
	invalidate_bdev(bdev);
	return !filemap_range_needs_writeback(bdev->bd_mapping, 0, LLONG_MAX);
}

bool avio_file_writable(const struct file *file)
{
	return file->f_mode & FMODE_WRITE;
}

u64 avio_bdev_sectors(struct block_device *bdev)
{
	return bdev_nr_sectors(bdev);
}

u32 avio_bdev_logical_block(struct block_device *bdev)
{
	return bdev_logical_block_size(bdev);
}

u32 avio_bdev_physical_block(struct block_device *bdev)
{
	return bdev_physical_block_size(bdev);
}

u32 avio_bdev_dma_alignment(struct block_device *bdev)
{
	return bdev_dma_alignment(bdev);
}

bool avio_bdev_read_only(struct block_device *bdev)
{
	return bdev_read_only(bdev);
}

/*
 * What is made of other devices (dm, md) may get one with a cache at any time. A flush that none needs ends in the block
 * layer, and so does a request to write through.
 */
static bool may_get_cache(struct block_device *bdev)
{
	return !queue_is_mq(bdev_get_queue(bdev));
}

bool avio_bdev_write_cache(struct block_device *bdev)
{
	return bdev_write_cache(bdev) || may_get_cache(bdev);
}

bool avio_bdev_zoned(struct block_device *bdev)
{
	return bdev_is_zoned(bdev);
}

bool avio_bdev_fua(struct block_device *bdev)
{
	return bdev_fua(bdev) || may_get_cache(bdev);
}

bool avio_bdev_rotational(struct block_device *bdev)
{
	return bdev_rot(bdev);
}

bool avio_bdev_stable_writes(struct block_device *bdev)
{
	return bdev_stable_writes(bdev);
}

u32 avio_bdev_io_min(struct block_device *bdev)
{
	return bdev_io_min(bdev);
}

u32 avio_bdev_io_opt(struct block_device *bdev)
{
	return bdev_io_opt(bdev);
}

bool avio_bdev_nowait(struct block_device *bdev)
{
	return bdev_nowait(bdev);
}

/*
 * A driver that may sleep over a request does not say so where it says that it knows REQ_NOWAIT. Its tag set goes when the
 * device does, which may still be open then, but not while somebody is in the queue.
 */
bool avio_bdev_blocking(struct block_device *bdev)
{
	struct request_queue *queue = bdev_get_queue(bdev);
	bool blocking = true;

	if (percpu_ref_tryget_live(&queue->q_usage_counter)) {
		blocking = queue->tag_set && queue->tag_set->flags & BLK_MQ_F_BLOCKING;
		percpu_ref_put(&queue->q_usage_counter);
	}
	return blocking;
}

u32 avio_bdev_max_discard(struct block_device *bdev)
{
	return bdev_max_discard_sectors(bdev);
}

u32 avio_bdev_discard_granularity(struct block_device *bdev)
{
	return bdev_discard_granularity(bdev);
}

u32 avio_bdev_max_secure_erase(struct block_device *bdev)
{
	return bdev_max_secure_erase_sectors(bdev);
}

u32 avio_bdev_max_write_zeroes(struct block_device *bdev)
{
	return bdev_write_zeroes_sectors(bdev);
}
