// SPDX-License-Identifier: GPL-2.0
#include "shim_guest.h"
#include <linux/backing-dev.h>
#include <linux/file.h>
#include <linux/idr.h>
#include <linux/io.h>
#include <linux/sched/stat.h>
#include <linux/sysfs.h>

phys_addr_t avio_virt_to_phys(const void *addr)
{
	return virt_to_phys((void *)addr);
}

bool avio_rq_next_run(struct bio **bio, struct bvec_iter *iter, phys_addr_t *addr, unsigned int *len)
{
	struct bio_vec bv;

	while (*bio && !iter->bi_size) {
		*bio = (*bio)->bi_next;
		if (*bio)
			*iter = (*bio)->bi_iter;
	}
	if (!*bio)
		return false;
	bv = mp_bvec_iter_bvec((*bio)->bi_io_vec, *iter);
	*addr = bvec_phys(&bv);
	*len = bv.bv_len;
	bio_advance_iter_single(*bio, iter, bv.bv_len);
	return true;
}

bool avio_rq_add_to_batch(struct request *rq, struct io_comp_batch *batch, bool is_error)
{
	return blk_mq_add_to_batch(rq, batch, is_error, blk_mq_end_request_batch);
}

blk_features_t avio_blk_feat_write_cache(void)
{
	return BLK_FEAT_WRITE_CACHE;
}

blk_features_t avio_blk_feat_fua(void)
{
	return BLK_FEAT_FUA;
}

blk_features_t avio_blk_feat_stable_writes(void)
{
	return BLK_FEAT_STABLE_WRITES;
}

unsigned int avio_noio_save(void)
{
	return memalloc_noio_save();
}

void avio_noio_restore(unsigned int before)
{
	memalloc_noio_restore(before);
}

static struct ida indices[] = { IDA_INIT(indices[0]), IDA_INIT(indices[1]) };

int avio_index_get(unsigned int kind)
{
	return ida_alloc(&indices[kind], GFP_KERNEL);
}

void avio_index_put(unsigned int kind, unsigned int index)
{
	ida_free(&indices[kind], index);
}

void avio_disk_hold_partitions(struct gendisk *disk)
{
	set_bit(GD_SUPPRESS_PART_SCAN, &disk->state);
}

void avio_disk_find_partitions(struct gendisk *disk)
{
	struct file *file;

	clear_bit(GD_SUPPRESS_PART_SCAN, &disk->state);
	set_bit(GD_NEED_PART_SCAN, &disk->state);
	file = bdev_file_open_by_dev(disk_devt(disk), BLK_OPEN_READ, NULL, NULL);
	/* At once: a later close would keep the module when the caller says that it is done. */
	if (!IS_ERR(file))
		__fput_sync(file);
}

/*
 * Without freezing the queue, which may take as long as a backing hangs: each of these is looked at once for a request,
 * and one that was made by the old value is one that the device refuses at worst.
 */
int avio_disk_set_limits(struct gendisk *disk, const struct queue_limits *from, const struct queue_limits *to)
{
	blk_features_t changed = (from->features ^ to->features) &
				 (BLK_FEAT_WRITE_CACHE | BLK_FEAT_FUA | BLK_FEAT_ROTATIONAL);
	unsigned long ra_pages = disk->bdi->ra_pages;
	struct queue_limits limits;
	bool any = changed;
	int error;

#define SAME(field) (from->field == to->field)
#define TAKE(field)					\
	do {						\
		if (!SAME(field)) {			\
			limits.field = to->field;	\
			any = true;			\
		}					\
	} while (0)

	/* Who has the lock may wait for our requests. */
	if (!mutex_trylock(&disk->queue->limits_lock))
		return -EAGAIN;
	limits = disk->queue->limits;
	limits.features = (limits.features & ~changed) | (to->features & changed);
	TAKE(physical_block_size);
	TAKE(io_min);
	TAKE(io_opt);
	TAKE(max_hw_discard_sectors);
	TAKE(discard_granularity);
	TAKE(max_secure_erase_sectors);
	TAKE(max_write_zeroes_sectors);
	if (!any) {
		queue_limits_cancel_update(disk->queue);
		return 0;
	}
	error = queue_limits_commit_update(disk->queue, &limits);
	/* What somebody has set for reading ahead stays, unless what it goes by is another. */
	if (SAME(io_opt) && !(changed & BLK_FEAT_ROTATIONAL))
		disk->bdi->ra_pages = ra_pages;
	return error;
#undef TAKE
#undef SAME
}

void avio_disk_rescan(struct gendisk *disk)
{
	set_bit(GD_NEED_PART_SCAN, &disk->state);
	disk_uevent(disk, KOBJ_CHANGE);
}

static ssize_t disk_text(struct device *dev, char *buf, int which)
{
	const char (*texts)[AVIO_TEXT] = dev_to_disk(dev)->private_data;

	return sysfs_emit(buf, "%s\n", texts[which]);
}

static ssize_t serial_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return disk_text(dev, buf, 0);
}
static DEVICE_ATTR_RO(serial);

static ssize_t wwid_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return disk_text(dev, buf, 1);
}
static DEVICE_ATTR_RO(wwid);

static ssize_t lun_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return disk_text(dev, buf, 2);
}
static DEVICE_ATTR_RO(lun);

static struct attribute *disk_attrs[] = {
	&dev_attr_serial.attr,
	&dev_attr_wwid.attr,
	&dev_attr_lun.attr,
	NULL,
};
ATTRIBUTE_GROUPS(disk);

const struct attribute_group **avio_disk_attributes(void)
{
	return disk_groups;
}

bool avio_current_is_idle(void)
{
	return is_idle_task(current);
}

bool avio_alone(void)
{
	return !need_resched() && single_task_running();
}
