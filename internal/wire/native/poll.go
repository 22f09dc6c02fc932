package native

import (
	"context"
	"math"
	"net/http"
	"time"

	"github.com/runnel-fota/runnel/core/digest"
	core "github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/internal/fleet"
)

// caller is who sent a message, with the key under which its MAC was right.
type caller struct {
	dev  *device
	keys *keySet
	key  *core.Keys
	no   uint8
}

// identify checks the MAC before anything is read: decode is the message's. Who is
// not known, has no such key or a wrong MAC gets the same error in about the same time.
func (s *Server) identify(ctx context.Context, body []byte, decode func(core.MAC) core.Error) (caller, error) {
	id, no, e := core.Peek(body)
	if e != 0 {
		return caller{}, malformed(e)
	}
	dev, err := s.devices.get(ctx, string(id))
	if err != nil {
		return caller{}, err
	}
	c := caller{dev: dev, no: no}
	if dev != nil {
		c.keys = dev.keySet()
		if c.key = c.keys.key(no); c.key == nil {
			// One that was added since?
			if c.dev, err = s.devices.reload(ctx, string(id)); err != nil {
				return caller{}, err
			}
			if c.dev != nil {
				c.keys = c.dev.keySet()
				c.key = c.keys.key(no)
			}
		}
	}
	return c, c.check(decode)
}

func (c *caller) check(decode func(core.MAC) core.Error) error {
	key := c.key
	if key == nil {
		key = nobody
	}
	e := decode(softMAC(key))
	if e == core.ErrMAC || c.key == nil {
		return errWho
	}
	if e != 0 {
		return malformed(e)
	}
	return nil
}

// softMAC is one allocation: the MAC with its running hash.
func softMAC(k *core.Keys) core.MAC {
	m := &struct {
		core.SoftMAC
		run digest.SHA256
	}{}
	m.Keys, m.Run = k, &m.run
	return &m.SoftMAC
}

// tries bounds how often a poll is read again because the catalogue moved under it.
const tries = 4

func (s *Server) poll(r *http.Request, body, buf []byte) ([]byte, error) {
	ctx := r.Context()
	var m core.Poll
	decode := func(mac core.MAC) core.Error { return m.Decode(body, mac) }
	c, err := s.identify(ctx, body, decode)
	if err != nil {
		return nil, err
	}
	now := s.c.Now()
	ask := askOf(&m)
	state, offers, has, err := s.read(ctx, &c, &m, ask, decode, now)
	if err != nil {
		return nil, err
	}
	facts := factsOf(&m, ask)
	refused := ask.Wire.WeakerThan(state.StrongestWire)
	t := taken{fresh: has, highest: state.NativeNonce}
	if s.c.Replicas == nil {
		if c.dev, t, err = s.devices.take(ctx, c.dev, m.Nonce, state.NativeNonce); err != nil {
			return nil, err
		}
		if t.booted {
			state.Boot = t.boot // what is written behind may not be in the store yet
		}
	} else if !has {
		t.highest = max(t.highest, m.Nonce)
	}
	a := core.Answer{Device: m.Device, Random: m.Random, Nonce: m.Nonce, Highest: t.highest, ComeBack: uint32(MinComeBack / time.Second),
		ListVersion: offers.ListVersion, ListGeneration: offers.ListGeneration, Time: unix(now)}
	if t.fresh {
		out := fleet.NativeDecision{}
		var change fleet.NativeChange
		var needed bool
		if refused {
			change, needed = fleet.NativeRefusal(&state, ask.Wire, m.Boot, now)
		} else {
			out = offers.Decide(&state, ask, now, nil)
			change, needed = fleet.NativeChanges(&state, facts, ask.Wire, out, m.Boot, m.Key, c.keys.numbers, now)
		}
		change.Nonce, change.Taken, change.Health = m.Nonce, has, ask.Health
		taken, err := s.change(ctx, c.dev, change, needed)
		if err != nil {
			return nil, err
		}
		if taken.Refused {
			// Another device took the last place, or the rollout moved since it was read.
			out = fleet.NativeDecision{Cancel: out.Cancel}
		}
		fresh := taken.Fresh
		if !fresh {
			// Another replica took this nonce, or a higher one, in between: the device must
			// not read "nothing" out of it.
			a.Highest = max(a.Highest, m.Nonce)
		}
		if fresh && !refused {
			s.fill(&a, out)
			if change.Wire != state.StrongestWire && s.c.WireRaised != nil {
				s.c.WireRaised(c.dev.id)
			}
		}
	}
	if refused {
		return nil, errWho
	}
	answer, e := a.Encode(buf, softMAC(c.key))
	if e != 0 {
		return nil, &fleet.Error{Code: fleet.CodeInternal, Message: "the answer can't be encoded", Err: e}
	}
	return answer, nil
}

// change makes what a poll changes, or leaves it to be written behind. It is not
// fresh where another replica has taken that nonce or a higher one: then nothing
// was changed, and the device is told as if this one had known.
func (s *Server) change(ctx context.Context, dev *device, c fleet.NativeChange, needed bool) (taken fleet.Taken, err error) {
	if s.c.Replicas != nil {
		if !needed {
			return fleet.Taken{Fresh: true}, nil // what it taught was written with the nonce
		}
		return s.c.Devices.TakePoll(context.WithoutCancel(ctx), c)
	}
	if !needed {
		dev.booted(c.Boot, c.Health)
		dev.done(true, c.Now)
		return fleet.Taken{Fresh: true}, nil
	}
	defer dev.done(false, c.Now)
	taken, err = s.c.Devices.TakePoll(context.WithoutCancel(ctx), c)
	if taken.Fresh {
		dev.booted(c.Boot, c.Health)
	}
	return taken, err
}

// read reads, in one statement, all that the poll needs. Where its keys or the
// catalogue changed since they were read into memory, those are read again, and
// the poll is judged by the new ones: what was withdrawn, or retired, before a
// poll began does not reach it. Where servers share the store the statement also takes the
// poll's nonce, once: has says that it did.
func (s *Server) read(ctx context.Context, c *caller, m *core.Poll, ask fleet.NativeAsk, decode func(core.MAC) core.Error, now time.Time) (state fleet.NativeDevice, offers *fleet.NativeOffers, has bool, err error) {
	if offers, err = s.offers.get(ctx, 0); err != nil {
		return state, nil, false, err
	}
	var first fleet.NativeDevice // as it was when the nonce was taken
	for range tries {
		want := offers.Wanted(c.dev.product, ask)
		state, took, err := s.readOnce(ctx, c, m, want, has, now)
		if took {
			first, has = state, true
		}
		if fleet.CodeOf(err) == fleet.CodeNotFound {
			return state, nil, has, errWho
		}
		if err != nil {
			return state, nil, has, err
		}
		stale := state.KeysVersion != c.keys.version
		if stale {
			if c.dev, err = s.devices.reload(ctx, c.dev.id); err != nil {
				return state, nil, has, err
			}
			if c.dev == nil {
				return state, nil, has, errWho
			}
			c.keys = c.dev.keySet()
			c.key = c.keys.key(c.no)
			if err := c.check(decode); err != nil {
				return state, nil, has, err
			}
		}
		if offers, err = s.offers.get(ctx, state.Generation); err != nil {
			return state, nil, has, err
		}
		if stale && s.c.Replicas != nil && !has {
			continue // with the keys of before no nonce was taken
		}
		if offers.Wanted(c.dev.product, ask).Equal(want) {
			if has {
				state.NativeNonce, state.Boot = first.NativeNonce, first.Boot
			}
			return state, offers, has, nil
		}
	}
	return fleet.NativeDevice{}, nil, has, fleet.Errorf(fleet.CodeBusy, "releases change too fast")
}

// readOnce reads what the poll needs, and takes its nonce where servers share the store and
// none was taken yet.
func (s *Server) readOnce(ctx context.Context, c *caller, m *core.Poll, want fleet.Wanted, has bool, now time.Time) (fleet.NativeDevice, bool, error) {
	if s.c.Replicas == nil || has || m.Nonce > maxNonce {
		state, err := s.c.Devices.NativePoll(ctx, c.dev.id, want)
		return state, false, err
	}
	return s.c.Replicas.PollTaking(ctx, fleet.NativeSeen{Device: c.dev.id, Nonce: m.Nonce, Boot: m.Boot, At: now, Health: healthOf(m)}, c.keys.version, want)
}

func (s *Server) fill(a *core.Answer, d fleet.NativeDecision) {
	a.ComeBack = uint32(s.c.ComeBack / time.Second)
	a.Cancel, a.Revert = d.Cancel, d.Revert
	if d.Retry != nil {
		a.Retry = d.Retry[:]
	}
	if r := d.Release; r != nil {
		a.HasOffer = true
		a.Offer = core.Offer{Epoch: r.Epoch, Sequence: r.Sequence, Manifest: r.ManifestDigest[:], ManifestLength: uint32(len(r.Envelope)),
			Stream: d.Stream.Digest[:], Chunk: d.Stream.Chunk, FileLength: uint64(d.Stream.Length)}
		if m := d.Derived; m != nil {
			sheet := m.SheetDigest()
			a.Offer.Sheet, a.Offer.SheetLength, a.Offer.Derived = sheet[:], uint32(len(m.Sheet)), m.Digest[:]
		}
	}
}

func unix(t time.Time) uint32 { return uint32(min(max(t.Unix(), 0), math.MaxUint32)) }

func askOf(m *core.Poll) fleet.NativeAsk {
	wire := fleet.WireMACOnly
	if m.Profile == core.ProfileSigned {
		wire = fleet.WireSigned
	}
	a := fleet.NativeAsk{Wire: wire, Hardware: m.Hardware, ESP: m.HasChip, Chip: m.Chip, Epoch: m.Epoch, Sequence: m.Sequence,
		SecurityVersion: m.SecurityVersion, Slots: m.Slots[:m.SlotCount], Running: int(m.Running), Envelope: m.Envelope, Chunk: m.Chunk, InProgress: m.InProgress,
		Version: fleet.CleanText(string(m.Version), fleet.MaxVersion), Image: m.Digest,
		SecureBoot: m.Security&core.SecureBoot != 0, FlashEncryption: m.Security&core.FlashEncryption != 0, Rollback: m.Security&core.Rollback != 0, Health: healthOf(m)}
	a.Derived = fleet.Derived(m.Derived)
	if m.HasSecureVersion {
		a.SecureVersion = &m.SecureVersion
	}
	return a
}

// healthOf is what of a poll says how the device is doing; nothing where that can't be read.
func healthOf(m *core.Poll) (out fleet.Health) {
	var h core.Health
	if len(m.Health) == 0 || h.Decode(m.Health) != 0 {
		return out
	}
	out = fleet.Health{FreeRAM: int64(h.FreeRAM), Battery: int(h.Battery), Signal: -int(h.Signal)}
	if int(h.Reset) < len(fleet.BootReasons) {
		out.BootReason = fleet.BootReasons[h.Reset]
	}
	return out
}

func factsOf(m *core.Poll, ask fleet.NativeAsk) fleet.NativeFacts {
	return fleet.NativeFacts{RunningVersion: ask.Version, Hardware: fleet.HardwareText(m.Hardware),
		Epoch: m.Epoch, Sequence: m.Sequence, SecurityVersion: m.SecurityVersion, ListVersion: m.ListVersion,
		Slots: int(m.SlotCount), RunningSlot: int(m.Running), Ask: ask.Text()}
}
