package crash

import (
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/core/state"
	"github.com/runnel-fota/runnel/sim/nor"
)

// An updater that is broken in one way is found out by the sweep: else a sweep that
// finds nothing says nothing.
func TestSweepFindsBrokenUpdaters(t *testing.T) {
	for _, c := range []struct {
		name, scenario, geometry string
		change                   func(t *testing.T) func(*device.Config)
	}{
		{"a state of one copy", "v1-update", "tiny", func(t *testing.T) func(*device.Config) {
			return func(c *device.Config) {
				s := c.Store.(*state.Sectors)
				c.Store = &oneCopy{s, *s}
			}
		}},
		{"staged as if it were confirmed", "native-crash", "tiny", func(*testing.T) func(*device.Config) {
			return func(c *device.Config) { c.Boot = &rashStage{c.Boot} }
		}},
		{"staged as if it were confirmed, under a boot stage of ours", "native-crash", OwnGeometry, func(*testing.T) func(*device.Config) {
			return func(c *device.Config) { c.Boot = &rashStage{c.Boot} }
		}},
		{"the target is not protected, under a boot stage of ours", "native-over-older", OwnGeometry, func(*testing.T) func(*device.Config) {
			return func(c *device.Config) { c.Boot = &carelessErase{c.Boot} }
		}},
		{"no erase where it looks blank", "native-over-older", "tiny", func(t *testing.T) func(*device.Config) {
			return overFlash(t, true, func(d flash.Device) flash.Device { return &lazyErase{d} })
		}},
		{"a journal without a CRC check", "v1-update", "tiny", func(t *testing.T) func(*device.Config) {
			return overFlash(t, false, func(d flash.Device) flash.Device { return &anyCRC{Device: d} })
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			set := setup(t, c.scenario, c.geometry)
			set.change = c.change(t)
			r := set.Sweep(t.Context(), 1, 1)
			t.Logf("%d of %d runs failed", r.Failed(), r.Runs)
			if r.Failed() == 0 {
				t.Fatal("the sweep found nothing")
			}
			t.Log(r.Failures[0])
		})
	}
}

// Without its snapshots a device fetches more again than is promised, which the sweep
// finds: else a sweep that finds nothing would say nothing of them.
func TestSweepFindsLostSnapshots(t *testing.T) {
	set := setup(t, "native-kept-resume", longGeometry)
	set.forget = func(a flash.Area) flash.Area {
		n, err := flash.NewArea(&forgetful{Device: &a}, 0, a.Size())
		if err != nil {
			t.Error(err)
		}
		return n
	}
	var row Row
	root := set.root.clone(set.root.b.Chip.Clone())
	root.dry = true
	root.power(func(k int, op nor.Op) nor.Cut {
		if op.Kind == nor.Erase && k > 0 {
			explore(t.Context(), root.fork(k, 0, nor.Cut{When: nor.CutBefore}), 0, &row)
		}
		return nor.Cut{}
	})
	t.Logf("%d of %d runs failed", row.Failed(), row.Runs)
	if root.failure != nil || row.Kinds[Stuck] == 0 {
		t.Fatalf("without a cut: %v; the sweep found %v", root.failure, row.Failures)
	}
	t.Log(row.Failures[0])
}

// forgetful is a scratch partition that reads wrong until it is erased in this start.
type forgetful struct {
	flash.Device
	erased bool
}

func (d *forgetful) Erase(off, n uint32) error {
	d.erased = true
	return d.Device.Erase(off, n)
}

func (d *forgetful) ReadAt(p []byte, off uint32) error {
	err := d.Device.ReadAt(p, off)
	if !d.erased {
		p[0] ^= 1
	}
	return err
}

// oneCopy is a store that knows of no other copy: it always writes the same sector.
type oneCopy struct {
	*state.Sectors
	fresh state.Sectors
}

func (s *oneCopy) Load(r *state.Record, buf []byte) error {
	err := s.Sectors.Load(r, buf)
	*s.Sectors = s.fresh
	return err
}

func (s *oneCopy) Save(r *state.Record, buf []byte) (bool, error) {
	done, err := s.Sectors.Save(r, buf)
	if done {
		*s.Sectors = s.fresh
	}
	return done, err
}

// rashStage makes the new image's record VALID and its own INVALID: there is no trial.
type rashStage struct{ boot.Scheme }

func (s *rashStage) Step(goal boot.Goal, slot boot.Slot) (bool, error) {
	if goal == boot.GoalStage {
		goal = boot.GoalRevert
	}
	return s.Scheme.Step(goal, slot)
}

// carelessErase stages before the first erase what is to be protected.
type carelessErase struct{ boot.Scheme }

func (s *carelessErase) Step(goal boot.Goal, slot boot.Slot) (bool, error) {
	if goal == boot.GoalProtect {
		goal = boot.GoalStage
	}
	return s.Scheme.Step(goal, slot)
}

// overFlash puts a device between the chip and the updater's journal, or its slots too.
func overFlash(t *testing.T, slots bool, over func(flash.Device) flash.Device) func(*device.Config) {
	return func(c *device.Config) {
		wrap := func(a *flash.Area) {
			if a.Size() == 0 {
				return
			}
			inner := *a
			d := over(&inner)
			n, err := flash.NewArea(d, 0, inner.Size())
			if err != nil {
				t.Fatal(err)
			}
			*a = n
		}
		for i := range c.Slots {
			if slots {
				wrap(&c.Slots[i])
			}
		}
		wrap(&c.Journal)
	}
}

// lazyErase saves an erase of what reads as erased.
type lazyErase struct{ flash.Device }

func (d *lazyErase) Erase(off, n uint32) error {
	buf := make([]byte, n)
	if err := d.ReadAt(buf, off); err != nil {
		return err
	}
	for _, b := range buf {
		if b != 0xFF {
			return d.Device.Erase(off, n)
		}
	}
	return nil
}

// anyCRC puts the right CRC on whatever stands where a journal's entry would.
type anyCRC struct {
	flash.Device
	head uint32
}

func (d *anyCRC) ReadAt(p []byte, off uint32) error {
	if err := d.Device.ReadAt(p, off); err != nil {
		return err
	}
	le := binary.LittleEndian
	switch {
	case len(p) == 64 && off%4096 == 0:
		d.head = le.Uint32(p[60:])
	case len(p) == 16 && le.Uint32(p) != 0xFFFFFFFF:
		le.PutUint32(p[12:], crc32.Update(d.head, crc32.IEEETable, p[:12]))
	}
	return nil
}
