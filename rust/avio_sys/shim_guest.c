// SPDX-License-Identifier: GPL-2.0
#include "shim_guest.h"
#include <linux/idr.h>
#include <linux/io.h>
#include <linux/module.h>
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

static DEFINE_IDA(disk_indices);

int avio_disk_index_get(void)
{
	return ida_alloc(&disk_indices, GFP_KERNEL);
}

void avio_disk_index_put(unsigned int index)
{
	ida_free(&disk_indices, index);
}

static const struct block_device_operations disk_fops = {
	.owner = THIS_MODULE,
};

const struct block_device_operations *avio_disk_fops(void)
{
	return &disk_fops;
}

static ssize_t serial_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	const char *serial = dev_to_disk(dev)->private_data;

	return sysfs_emit(buf, "%s\n", serial);
}
static DEVICE_ATTR_RO(serial);

static struct attribute *disk_attrs[] = {
	&dev_attr_serial.attr,
	NULL,
};
ATTRIBUTE_GROUPS(disk);

const struct attribute_group **avio_disk_attributes(void)
{
	return disk_groups;
}
