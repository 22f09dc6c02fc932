package adminapi

import (
	"context"
	"encoding/hex"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// Deployment is a device's deployment as the API shows it.
type Deployment struct {
	Release        int64     `json:"release_id"`
	Version        string    `json:"version"`
	State          string    `json:"state"`
	ChunksReceived int       `json:"chunks_received"`
	ChunksTotal    int       `json:"chunks_total"`
	Verified       bool      `json:"verified"`
	BootStatus     string    `json:"boot_status,omitempty"`
	Reason         string    `json:"reason,omitempty"`
	Rollout        int64     `json:"rollout,omitempty" doc:"that it belongs to"`
	RawOnly        bool      `json:"raw_only,omitempty" doc:"a patch or the compressed image was of no use to the device: of this release it gets the raw stream"`
	Phase          int       `json:"phase,omitempty" doc:"of the rollout, from 1"`
	Proven         bool      `json:"proven" doc:"false: said without a MAC, and decides nothing"`
	StartedAt      time.Time `json:"started_at"`
	UpdatedAt      time.Time `json:"updated_at"`
}

// Device is a device as the API shows it. Keys are never shown.
type Device struct {
	ID             string            `json:"id"`
	Product        string            `json:"product,omitempty"`
	Assurance      string            `json:"assurance" doc:"none, shared (the product's key) or own" enum:"none,shared,own"`
	Warning        string            `json:"warning,omitempty"`
	AddedAt        time.Time         `json:"added_at"`
	LastSeen       *time.Time        `json:"last_seen,omitempty"`
	RunningVersion string            `json:"running_version,omitempty"`
	RunningDigest  string            `json:"running_digest,omitempty" doc:"SHA-256 of the image that it confirmed and runs; absent: not said"`
	Nonce          uint64            `json:"nonce" doc:"the highest that is stored"`
	Clocked        bool              `json:"clocked"`
	Signed         bool              `json:"signed"`
	StrongestWire  string            `json:"strongest_wire,omitempty" doc:"v1, mac-only or signed: weaker ones are refused under its name" enum:"v1,mac-only,signed"`
	NativeKeys     int               `json:"native_keys" doc:"how many live: two while one is exchanged"`
	Hardware       string            `json:"hardware,omitempty" doc:"what it says over the native wire, as the next six"`
	Epoch          uint32            `json:"epoch,omitempty"`
	Sequence       uint32            `json:"sequence,omitempty" doc:"of the image that it confirmed last"`
	SecVersion     uint32            `json:"security_version,omitempty"`
	ListVersion    uint32            `json:"list_version,omitempty" doc:"of the key list that it holds"`
	Slots          int               `json:"slots,omitempty" doc:"how many it has; absent: not said"`
	RunningSlot    *int              `json:"running_slot,omitempty" doc:"which it runs from; 255: its factory image"`
	SlotSizes      []uint32          `json:"slot_sizes,omitempty" doc:"bytes, by slot"`
	Bootloader     *Bootloader       `json:"bootloader,omitempty" doc:"absent: it has not polled over the native wire"`
	Patches        *Patches          `json:"patches,omitempty" doc:"which patches and compressed images it takes; absent: none"`
	Health         *fleet.Health     `json:"health,omitempty" doc:"as it said last; absent: it says nothing of it"`
	Tags           []string          `json:"tags,omitempty"`
	Attributes     map[string]string `json:"attributes,omitempty"`
	Failures       int               `json:"failures,omitempty" doc:"of releases, in a row"`
	RollbackWanted bool              `json:"rollback_wanted"`
	RollbackReason string            `json:"rollback_reason,omitempty"`
	RetryAt        *time.Time        `json:"retry_at,omitempty"`
	Deployment     *Deployment       `json:"deployment,omitempty" doc:"the latest"`
}

// Bootloader is what a device says that its chip and bootloader can do.
type Bootloader struct {
	Rollback        bool    `json:"rollback" doc:"it goes back by itself from an image that does not start"`
	SecureBoot      bool    `json:"secure_boot"`
	FlashEncryption bool    `json:"flash_encryption"`
	SecureVersion   *uint32 `json:"secure_version,omitempty" doc:"of the efuses; absent: it has none"`
}

// Patches is what a device says of patches and compressed images.
type Patches struct {
	Profiles []string `json:"profiles" doc:"of the coder: large, small"`
	RAM      uint32   `json:"ram" doc:"bytes that it has set aside"`
}

func patchesOf(d fleet.Derived) *Patches {
	out := &Patches{RAM: d.RAM}
	for p := range uint8(8) {
		if d.Takes(p) {
			out.Profiles = append(out.Profiles, fleet.ProfileName(p))
		}
	}
	if out.Profiles == nil {
		return nil
	}
	return out
}

const sharedWarning = "uses its product's key: every device of the product can speak in its name"

func deviceOf(d fleet.Device, dep *fleet.Deployment) Device {
	o := Device{ID: d.ID, Product: d.Product, Assurance: string(d.Assurance), AddedAt: d.AddedAt.UTC(), LastSeen: when(d.LastSeen),
		RunningVersion: d.RunningVersion, Nonce: d.Nonce, Clocked: d.Clocked, Signed: d.Signed,
		RollbackWanted: d.RollbackWanted, RollbackReason: d.RollbackReason, RetryAt: when(d.RetryAt),
		StrongestWire: string(d.StrongestWire), NativeKeys: d.NativeKeys, Hardware: d.Hardware, Epoch: d.Epoch, Sequence: d.Sequence,
		SecVersion: d.SecurityVersion, ListVersion: d.ListVersion, Tags: d.Tags, Attributes: d.Attributes, Failures: d.Failures}
	if d.Slots > 0 {
		o.RunningSlot, o.Slots = &d.RunningSlot, d.Slots
	}
	if a := fleet.ParseAsk(d.Ask); a != nil {
		o.RunningDigest, o.SlotSizes = hex.EncodeToString(a.Image), a.Slots
		o.Patches = patchesOf(a.Derived)
		o.Bootloader = &Bootloader{Rollback: a.Rollback, SecureBoot: a.SecureBoot, FlashEncryption: a.FlashEncryption, SecureVersion: a.SecureVersion}
	}
	if d.Health != (fleet.Health{}) {
		o.Health = &d.Health
	}
	if d.Assurance == fleet.AssuranceShared {
		o.Warning = sharedWarning
	}
	if dep != nil {
		o.Deployment = &Deployment{Release: dep.ReleaseID, Version: dep.Version, State: string(dep.State),
			ChunksReceived: dep.ChunksReceived, ChunksTotal: dep.ChunksTotal, Verified: dep.Verified, BootStatus: dep.BootStatus,
			Reason: dep.Reason, Rollout: dep.Rollout, RawOnly: dep.RawOnly, Proven: dep.Proven, StartedAt: dep.StartedAt.UTC(), UpdatedAt: dep.UpdatedAt.UTC()}
		if dep.Rollout != 0 {
			o.Deployment.Phase = dep.Phase + 1
		}
	}
	return o
}

func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// parseKey says nothing of what it was given: it may be most of a key.
func parseKey(name, s string) (fleet.Key, error) {
	var k fleet.Key
	if len(s) != 2*len(k) {
		return k, fleet.Errorf(fleet.CodeInvalid, "%s has %d characters, not 64 hex digits", name, len(s))
	}
	if _, err := hex.Decode(k[:], []byte(s)); err != nil {
		return fleet.Key{}, fleet.Errorf(fleet.CodeInvalid, "%s is not 64 hex digits", name)
	}
	if k == (fleet.Key{}) {
		return k, fleet.Errorf(fleet.CodeInvalid, "%s is all zeros", name)
	}
	return k, nil
}

type deviceInput struct {
	ID string `path:"device" maxLength:"64"`
}

type deviceOutput struct{ Body Device }

type orderOutput struct {
	Body struct {
		Devices int `json:"devices" doc:"how many were told"`
	}
}

type empty struct{}

func (s *server) devices() {
	type addInput struct {
		Body struct {
			ID      string `json:"id" maxLength:"64"`
			Product string `json:"product,omitempty" maxLength:"64"`
			PSK     string `json:"psk,omitempty" maxLength:"64" doc:"its own v1 key, 64 hex digits; without one the product's counts"`
			Native  string `json:"native_key,omitempty" maxLength:"64" doc:"its secret for the native wire, 64 hex digits; not the v1 key"`
		}
	}
	huma.Register(s.api, op("add-device", "POST", "/devices", "Add a device", status(http.StatusCreated)), func(ctx context.Context, in *addInput) (*deviceOutput, error) {
		d := fleet.Device{ID: in.Body.ID, Product: in.Body.Product}
		err := fleet.ValidateDeviceID(d.ID)
		if err == nil && d.Product != "" {
			err = fleet.ValidateProduct(d.Product)
		}
		var key *fleet.Key
		if err == nil && in.Body.PSK != "" {
			var k fleet.Key
			k, err = parseKey("psk", in.Body.PSK)
			key = &k
		}
		switch {
		case err != nil:
		case in.Body.Native != "":
			var native fleet.Key
			if native, err = parseKey("native_key", in.Body.Native); err == nil {
				err = s.Keyring.AddNativeDevice(ctx, d, native, key, s.Now())
			}
		default:
			err = s.Devices.AddDevice(ctx, d, key, s.Now())
		}
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		return s.show(ctx, d.ID)
	})
	type listOutput struct {
		Body struct {
			Devices []Device `json:"devices"`
		}
	}
	huma.Register(s.api, op("list-devices", "GET", "/devices", "All devices with their latest deployments"), func(ctx context.Context, _ *empty) (*listOutput, error) {
		list, err := s.Devices.ListDevices(ctx)
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		deps, err := s.Deployments.ListDeployments(ctx)
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		of := make(map[string]*fleet.Deployment, len(deps))
		for i := range deps {
			of[deps[i].Device] = &deps[i]
		}
		o := &listOutput{}
		o.Body.Devices = make([]Device, 0, len(list))
		for _, d := range list {
			o.Body.Devices = append(o.Body.Devices, deviceOf(d, of[d.ID]))
		}
		return o, nil
	})
	huma.Register(s.api, op("show-device", "GET", "/devices/{device}", "One device"), func(ctx context.Context, in *deviceInput) (*deviceOutput, error) {
		return s.show(ctx, in.ID)
	})
	type timelineInput struct {
		ID    string `path:"device" maxLength:"64"`
		Limit int    `query:"limit" default:"100" minimum:"1" maximum:"1000"`
	}
	huma.Register(s.api, op("device-timeline", "GET", "/devices/{device}/timeline", "What became of it, newest first"), func(ctx context.Context, in *timelineInput) (*eventsOutput, error) {
		if _, err := s.Devices.Device(ctx, in.ID); err != nil {
			return nil, s.fail(ctx, err)
		}
		return s.events(ctx, in.ID, in.Limit)
	})
	huma.Register(s.api, op("reset-nonce", "POST", "/devices/{device}/reset-nonce", "Forget its highest nonce and its clock"), func(ctx context.Context, in *deviceInput) (*deviceOutput, error) {
		if err := s.Orders.ResetNonce(ctx, in.ID, s.Now()); err != nil {
			return nil, s.fail(ctx, err)
		}
		return s.show(ctx, in.ID)
	})
	huma.Register(s.api, op("retry-device", "POST", "/devices/{device}/retry", "Let it try again what it found bad"), func(ctx context.Context, in *deviceInput) (*deviceOutput, error) {
		if err := s.Orders.OrderRetry(ctx, in.ID, s.Now()); err != nil {
			return nil, s.fail(ctx, err)
		}
		return s.show(ctx, in.ID)
	})
	type rollbackInput struct {
		ID   string `path:"device" maxLength:"64" doc:"an id, or all"`
		Body struct {
			Reason string `json:"reason,omitempty" maxLength:"256"`
		}
	}
	huma.Register(s.api, op("rollback-device", "POST", "/devices/{device}/rollback", "Have it go back to the image before"), func(ctx context.Context, in *rollbackInput) (*orderOutput, error) {
		reason := fleet.CleanText(in.Body.Reason, fleet.MaxText)
		if reason == "" {
			reason = fleet.DefaultReason
		}
		n, err := s.Orders.OrderRollback(ctx, in.ID, reason, s.Now())
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		o := &orderOutput{}
		o.Body.Devices = n
		return o, nil
	})
}

func (s *server) show(ctx context.Context, id string) (*deviceOutput, error) {
	d, err := s.Devices.Device(ctx, id)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	dep, err := s.Deployments.Deployment(ctx, id)
	switch fleet.CodeOf(err) {
	case "":
		return &deviceOutput{deviceOf(d, &dep)}, nil
	case fleet.CodeNotFound:
		return &deviceOutput{deviceOf(d, nil)}, nil
	}
	return nil, s.fail(ctx, err)
}
