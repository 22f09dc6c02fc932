package native

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/runnel-fota/runnel/core/digest"
	core "github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/internal/fleet"
)

// device is what is in memory of one. id and product don't change.
type device struct {
	id, product string

	mu    sync.Mutex
	keys  *keySet
	nonce uint64 // highest taken, here or as far as the store was read
	boot  uint32 // of the latest poll
	seen  time.Time
	// health is what the latest poll that said any said; the zero one: none since it is in memory.
	health fleet.Health
	dirty  bool // there is something to write behind
	gone   bool // out of the cache: another entry may be in use
	// busy calls are on their way to the store with a nonce that it judges itself: it must not be
	// written behind before them.
	busy int
}

// keySet is the keys of a device that live. It does not change.
type keySet struct {
	version int64
	numbers []uint8 // the oldest first
	keys    []core.Keys
}

// nobody's keys have the MAC of an unknown device computed too.
var nobody = func() *core.Keys {
	k := new(core.Keys)
	var run digest.SHA256
	k.Derive(new([core.SecretSize]byte), &run)
	return k
}()

func newKeySet(k fleet.NativeKeys) *keySet {
	s := &keySet{version: k.Version, numbers: make([]uint8, len(k.Keys)), keys: make([]core.Keys, len(k.Keys))}
	var run digest.SHA256
	for i := range k.Keys {
		s.numbers[i] = k.Keys[i].Number
		secret := [core.SecretSize]byte(k.Keys[i].Secret)
		s.keys[i].Derive(&secret, &run)
	}
	return s
}

// key is nil for a number that does not live.
func (s *keySet) key(number uint8) *core.Keys {
	for i, n := range s.numbers {
		if n == number {
			return &s.keys[i]
		}
	}
	return nil
}

func (d *device) keySet() *keySet {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.keys
}

// taken is what became of a nonce.
type taken struct {
	fresh bool // it is above all that were known; the caller calls done when the store has heard of it
	// highest is what was known before: the device tells by it whether its nonce was taken, so it
	// is not below one that was not.
	highest uint64
	boot    uint32 // what the latest poll before said, if booted
	booted  bool
}

// take takes a nonce, if it is above all that are known: stored is the store's.
func (d *device) take(nonce, stored uint64) (taken, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gone {
		// Another entry may be in use. Answered as one that is not fresh, the device would be told
		// a wrong number.
		return taken{}, errGone
	}
	t := taken{boot: d.boot, booted: d.nonce >= stored}
	d.nonce = max(d.nonce, stored)
	t.highest = d.nonce
	if nonce <= d.nonce || nonce > maxNonce {
		t.highest = max(t.highest, nonce)
		return t, nil
	}
	t.fresh = true
	d.nonce = nonce
	d.busy++
	return t, nil
}

// errGone: the device left memory since it was found there. The caller finds it again.
var errGone = fleet.Errorf(fleet.CodeBusy, "try again")

// maxNonce is the highest that is taken: stores keep 63 bits. No device counts that far.
const maxNonce = 1<<63 - 1

// done ends a take. behind: the store has not heard of it, and may as well later.
func (d *device) done(behind bool, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.busy--
	if behind {
		d.seen, d.dirty = now, true
	}
}

// booted notes the boot counter of a poll that was taken, and how the device is doing.
func (d *device) booted(boot uint32, h fleet.Health) {
	d.mu.Lock()
	d.boot = boot
	if h != (fleet.Health{}) {
		d.health = h
	}
	d.mu.Unlock()
}

// deviceCache holds devices in use, limit at most. Unknown ones are not held.
type deviceCache struct {
	store fleet.NativeDevices
	limit int
	load  singleflight.Group

	mu   sync.RWMutex
	byID map[string]*device

	writeMu sync.Mutex // one writer to the store
}

func newDeviceCache(store fleet.NativeDevices, limit int) *deviceCache {
	return &deviceCache{store: store, limit: limit, byID: make(map[string]*device)}
}

// get answers a nil device for one that is not known or has no native key.
func (c *deviceCache) get(ctx context.Context, id string) (*device, error) {
	c.mu.RLock()
	d := c.byID[id]
	c.mu.RUnlock()
	if d != nil {
		return d, nil
	}
	return c.reload(ctx, id)
}

// reload reads a device's keys anew; those who ask at once share the reading.
func (c *deviceCache) reload(ctx context.Context, id string) (*device, error) {
	v, err, _ := c.load.Do(id, func() (any, error) { return c.read(context.WithoutCancel(ctx), id) })
	if err != nil {
		return nil, err
	}
	return v.(*device), nil
}

func (c *deviceCache) read(ctx context.Context, id string) (*device, error) {
	k, err := c.store.NativeKeys(ctx, id)
	if fleet.CodeOf(err) == fleet.CodeNotFound {
		c.mu.Lock()
		if d := c.byID[id]; d != nil {
			d.mu.Lock()
			d.gone = true
			d.mu.Unlock()
			delete(c.byID, id)
		}
		c.mu.Unlock()
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	set := newKeySet(k)
	c.mu.RLock()
	full := len(c.byID) >= c.limit && c.byID[id] == nil
	c.mu.RUnlock()
	if full {
		if err := c.makeRoom(ctx); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.byID[id]
	if d == nil {
		d = &device{id: id, product: k.Product, boot: k.Boot}
		c.byID[id] = d
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.keys == nil || d.keys.version < set.version {
		d.keys = set
	}
	d.nonce = max(d.nonce, k.Nonce)
	return d, nil
}

// makeRoom drops a sixteenth, of those that have nothing unwritten: without a write where
// enough of them are.
func (c *deviceCache) makeRoom(ctx context.Context) error {
	if c.dropClean() {
		return nil
	}
	if err := c.flush(ctx); err != nil {
		return err
	}
	if !c.dropClean() {
		return fleet.Errorf(fleet.CodeBusy, "too many devices at once")
	}
	return nil
}

// dropClean says whether there is room now.
func (c *deviceCache) dropClean() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	want := c.limit - c.limit/16 - 1
	for id, d := range c.byID {
		if len(c.byID) <= want {
			break
		}
		d.mu.Lock()
		if !d.dirty && d.busy == 0 {
			d.gone = true
			delete(c.byID, id)
		}
		d.mu.Unlock()
	}
	return len(c.byID) < c.limit
}

// take is device.take, of the entry that is in memory: d, or the one that came after it.
func (c *deviceCache) take(ctx context.Context, d *device, nonce, stored uint64) (*device, taken, error) {
	for range tries {
		t, err := d.take(nonce, stored)
		if !errors.Is(err, errGone) {
			return d, t, err
		}
		if d, err = c.get(ctx, d.id); err != nil {
			return nil, taken{}, err
		}
		if d == nil {
			return nil, taken{}, errWho
		}
	}
	return nil, taken{}, errGone
}

// flush writes what is not written yet.
func (c *deviceCache) flush(ctx context.Context) error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	var seen []fleet.NativeSeen
	var of []*device
	c.mu.RLock()
	for _, d := range c.byID {
		d.mu.Lock()
		if d.dirty && d.busy == 0 {
			seen = append(seen, fleet.NativeSeen{Device: d.id, Nonce: d.nonce, Boot: d.boot, At: d.seen, Health: d.health})
			of = append(of, d)
			d.dirty = false
		}
		d.mu.Unlock()
	}
	c.mu.RUnlock()
	if len(seen) == 0 {
		return nil
	}
	// Neighbours are on the same pages.
	slices.SortFunc(seen, func(a, b fleet.NativeSeen) int { return strings.Compare(a.Device, b.Device) })
	err := c.store.SaveNativeSeen(ctx, seen)
	if err != nil {
		for _, d := range of {
			d.mu.Lock()
			d.dirty = true
			d.mu.Unlock()
		}
	}
	return err
}
