// Package storetest is what every store of the domain must do, as one suite: a
// store's own test calls Run. It knows the services of internal/fleet and
// nothing of databases.
package storetest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// Store is all services and Close: more than six methods because a suite looks
// at what one of them did through the others.
type Store interface {
	fleet.Releases
	fleet.Drafts
	fleet.Catalogue
	fleet.Devices
	fleet.Orders
	fleet.Deployments
	fleet.Log
	fleet.Tokens
	fleet.KeyLists
	fleet.SignedReleases
	fleet.SignedIntake
	fleet.Policies
	fleet.NativeDevices
	fleet.NativeKeyring
	fleet.NativeCatalogue
	fleet.EnrolTokens
	fleet.Enroller
	fleet.Rollouts
	fleet.RolloutEngine
	fleet.RolloutCatalogue
	fleet.RolloutPolicies
	RolloutAdmitter
	fleet.Groups
	fleet.Labels
	fleet.Decisions
	fleet.Derivations
	fleet.StreamKeys
	Sheet(ctx context.Context, digest fleet.Digest) (fleet.Stream, error)
	Close() error
}

// RolloutAdmitter is what fleet.RolloutDevices has beside NativeDevices.
type RolloutAdmitter interface {
	Admit(ctx context.Context, device string, a fleet.Admission, k fleet.KeptDecision) (refused bool, err error)
}

// Open opens the store in a folder; called again with the same one after Close,
// it opens the same store.
type Open func(t testing.TB, dir string) Store

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for _, c := range []struct {
		name string
		f    func(*suite)
	}{
		{"Publish", (*suite).publish},
		{"PublishRefuses", (*suite).publishRefuses},
		{"PublishStampsRise", (*suite).publishStampsRise},
		{"Catalogue", (*suite).catalogue},
		{"Withdraw", (*suite).withdraw},
		{"Intake", (*suite).intake},
		{"PolicyV1", (*suite).policyV1},
		{"Devices", (*suite).devices},
		{"Keys", (*suite).keys},
		{"SaveSeen", (*suite).saveSeen},
		{"ResetNonce", (*suite).resetNonce},
		{"Rollback", (*suite).rollback},
		{"RollbackAll", (*suite).rollbackAll},
		{"Retry", (*suite).retry},
		{"Reports", (*suite).reports},
		{"ReportNonce", (*suite).reportNonce},
		{"ReportsNamed", (*suite).reportsNamed},
		{"ReportsUnproven", (*suite).reportsUnproven},
		{"LatestDeployment", (*suite).latestDeployment},
		{"Events", (*suite).events},
		{"EventsAreBounded", (*suite).eventsAreBounded},
		{"Tokens", (*suite).tokens},
		{"SignedReleases", (*suite).signedReleases},
		{"SignedAnew", (*suite).signedAnew},
		{"Builds", (*suite).builds},
		{"BuildDeployments", (*suite).buildDeployments},
		{"RunningSlot", (*suite).runningSlot},
		{"Policies", (*suite).policies},
		{"Terms", (*suite).terms},
		{"Drafts", (*suite).drafts},
		{"Health", (*suite).health},
		{"KeyLists", (*suite).keyLists},
		{"PublishWithList", (*suite).publishWithList},
		{"ListMoved", (*suite).listMoved},
		{"NativeKeys", (*suite).nativeKeys},
		{"NativeKeysAreBounded", (*suite).nativeKeysAreBounded},
		{"NativePoll", (*suite).nativePoll},
		{"TakePoll", (*suite).takePoll},
		{"TakePollRace", (*suite).takePollRace},
		{"NativeSeen", (*suite).nativeSeen},
		{"NativeReports", (*suite).nativeReports},
		{"NativeReportsAgain", (*suite).nativeReportsAgain},
		{"StrongestWire", (*suite).strongestWire},
		{"EnrolTokens", (*suite).enrolTokens},
		{"Enrol", (*suite).enrol},
		{"EnrolApproval", (*suite).enrolApproval},
		{"EnrolConcurrent", (*suite).enrolConcurrent},
		{"Rollouts", (*suite).rollouts},
		{"RolloutRace", (*suite).rolloutRace},
		{"Admissions", (*suite).admissions},
		{"KeptDecisions", (*suite).keptDecisions},
		{"Counted", (*suite).counted},
		{"RolloutPolicies", (*suite).rolloutPolicies},
		{"Groups", (*suite).groups},
		{"Labels", (*suite).labels},
		{"Derived", (*suite).derived},
		{"RawOnly", (*suite).rawOnly},
		{"Derivations", (*suite).derivations},
		{"DerivationRace", (*suite).derivationRace},
		{"StreamKey", (*suite).streamKey},
		{"CountAsks", (*suite).countAsks},
		{"Cancelled", (*suite).cancelled},
		{"Concurrent", (*suite).concurrent},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &suite{T: t, dir: t.TempDir(), open: open}
			s.Store = open(t, s.dir)
			defer func() {
				if err := s.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			}()
			c.f(s)
		})
	}
}

// T0 is the suite's beginning of time.
var T0 = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return T0.Add(time.Duration(seconds * float64(time.Second))) }

func ptr[T any](v T) *T { return &v }

var ctx = context.Background()

type suite struct {
	*testing.T
	Store
	dir  string
	open Open
}

// reopen closes the store and opens it again.
func (s *suite) reopen() {
	s.Helper()
	if err := s.Close(); err != nil {
		s.Fatalf("close: %v", err)
	}
	s.Store = s.open(s, s.dir)
}

func (s *suite) ok(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// code wants an error of that code, with a message.
func (s *suite) code(err error, want fleet.Code) {
	s.Helper()
	var e *fleet.Error
	if !errors.As(err, &e) || e.Code != want || e.Message == "" {
		s.Errorf("error %v (%s), not %s", err, fleet.CodeOf(err), want)
	}
}

// release is an image of so many chunks of 1,024 bytes.
func release(product, version string, chunks int) fleet.Release {
	return fleet.Release{Product: product, Version: version, ChunkSize: 1024, Image: fleet.Image{
		Digest: sha256.Sum256([]byte(product + version)), Size: int64(chunks) * 1024,
		Chip: "ESP32-C3", Project: "pump", AppVersion: "v" + version, IDFVersion: "v5.5.1"}}
}

func (s *suite) mustPublish(product, version string, now time.Time) fleet.Release {
	s.Helper()
	r, created, err := s.Publish(ctx, release(product, version, 10), now)
	s.ok(err)
	if !created {
		s.Fatalf("%s %s was there", product, version)
	}
	return r
}

func (s *suite) addDevice(id string, now time.Time) {
	s.Helper()
	s.ok(s.AddDevice(ctx, fleet.Device{ID: id}, keyOf(id), now))
}

func keyOf(id string) *fleet.Key {
	k := fleet.Key(sha256.Sum256([]byte("key of " + id)))
	return &k
}

func (s *suite) device(id string) fleet.Device {
	s.Helper()
	d, err := s.Device(ctx, id)
	s.ok(err)
	return d
}

func (s *suite) deployment(device string) fleet.Deployment {
	s.Helper()
	p, err := s.Deployment(ctx, device)
	s.ok(err)
	return p
}

// names are the events' of a device, oldest first.
func (s *suite) names(device string) []string {
	s.Helper()
	events, total, err := s.Events(ctx, device, 1000)
	s.ok(err)
	if total < len(events) {
		s.Errorf("total %d of %d events", total, len(events))
	}
	names := make([]string, len(events))
	for i, e := range events {
		names[len(events)-1-i] = e.Name
	}
	return names
}

func (s *suite) wantNames(device string, want ...string) {
	s.Helper()
	if got := s.names(device); fmt.Sprint(got) != fmt.Sprint(want) {
		s.Errorf("events of %q: %v, not %v", device, got, want)
	}
}
