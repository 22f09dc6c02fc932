package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/release"
)

// How `runnel push` publishes release files: all of them are looked at before the
// first is sent, so that no half of a release is published for a fault of the other.

// pushReleases publishes release files. All but who signed them is checked here
// too: what was cut or altered on a disk need not travel.
func pushReleases(cmd *cobra.Command, r *remote, names []string, say fleet.Publication) error {
	c, err := r.client()
	if err != nil {
		return err
	}
	lists := make([][]byte, len(names))
	var builds []fleet.Release
	for i, name := range names {
		whole, err := wholeFile(cmd, name)
		if err != nil {
			return err
		}
		lists[i] = whole.KeyList
		b := buildIn(whole, int64(i)+1)
		beside := slices.DeleteFunc(slices.Clone(builds), func(o fleet.Release) bool { return !o.SameRelease(b) })
		if _, err := fleet.FindBuild(b, beside); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		builds = append(builds, b)
	}
	var last client.Published
	for i, name := range names {
		if last, err = pushRelease(cmd, r, c, name, lists[i], say); err != nil {
			return err
		}
	}
	return afterPush(cmd, c, r, last.Release)
}

func wholeFile(cmd *cobra.Command, name string) (*release.Contents, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := release.Verify(cmd.Context(), f, nil, release.Options{Unsigned: true})
	if err != nil {
		return nil, hinted(fmt.Errorf("%s: %w", name, err), "it was cut or altered: copy it again, or sign it again")
	}
	return c, nil
}

// buildIn is what the domain compares of a release file with others of the same call.
func buildIn(c *release.Contents, id int64) fleet.Release {
	m := c.Manifest
	b := fleet.Release{ID: id, Product: m.Product, Version: m.Version, Epoch: m.Epoch, Sequence: m.Sequence, SecurityVersion: m.SecurityVersion, State: fleet.ReleasePublished,
		Hardware: strings.Join(hardwareTexts(m.Hardware), ", "), ManifestDigest: fleet.Digest(c.Digest()),
		Image: fleet.Image{Digest: fleet.Digest(m.Image.Digest), Chip: formatText(&m.Image)}}
	if s := m.Image.Slot; s != nil {
		b.HasSlot, b.Slot = true, *s
	}
	return b
}

// pushRelease sends one that was looked at; list is the key list in it.
func pushRelease(cmd *cobra.Command, r *remote, c *client.Client, name string, list []byte, say fleet.Publication) (p client.Published, err error) {
	f, err := os.Open(name)
	if err != nil {
		return p, err
	}
	defer f.Close()
	if err := pinFirst(cmd, c, f, list); err != nil {
		return p, err
	}
	st, err := f.Stat()
	if err != nil {
		return p, err
	}
	p, err = sendFile(cmd, r, f, st.Size(), func(up io.Reader) (client.Published, error) {
		return c.PublishRelease(cmd.Context(), up, st.Size(), say)
	})
	if err != nil {
		return p, err
	}
	return p, showPublished(cmd, r, p)
}

// afterPush says that a build is the only one of its release, so that half of the devices
// wait for another, and that the server makes patches.
func afterPush(cmd *cobra.Command, c *client.Client, r *remote, l client.Release) error {
	d, err := c.ReleaseDetail(cmd.Context(), l.ID)
	if err != nil {
		return err
	}
	if d.Derived != nil && d.Derived.Listed && d.Derived.Why == "" && !r.json {
		fmt.Fprintf(cmd.OutOrStdout(), "the server makes patches from what the fleet runs: 'runnel release show %s' says how far it is\n", fleet.CleanText(l.Version, fleet.MaxVersion))
	}
	if l.Slot != nil && len(d.Builds) == 1 {
		warn(cmd, fmt.Sprintf("%s %s is published for slot %d only: devices that run from that slot get nothing until there is a build for another", l.Product, l.Version, *l.Slot))
	}
	return nil
}

// pinFirst gives a server that holds no key list that of the release file, and says
// in so many words whose roots the server believes from then on. It is the operator's
// word, by an operator's token; devices have roots of their own and don't hear of it.
// 'runnel keys publish --root' is for who wants the roots compared first.
func pinFirst(cmd *cobra.Command, c *client.Client, f io.ReadSeeker, list []byte) error {
	held, err := c.KeyLists(cmd.Context())
	if err != nil || len(held) > 0 || list == nil {
		return err
	}
	e, err := release.ParseEnvelope(slices.Clone(list))
	if err != nil {
		return err
	}
	l, err := release.DecodeKeyList(e.Payload)
	if err != nil {
		return err
	}
	own, err := release.TrustRoots(l.Generation, l.M, l.Roots...)
	if err != nil {
		return err
	}
	own.ThrowAway = true // the server has the last word on keys of a demo
	// Nothing is pinned by a file that would be refused then.
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if _, err := release.Verify(cmd.Context(), f, own, release.Options{}); err != nil {
		return err
	}
	if _, _, err := c.PublishKeyList(cmd.Context(), list); err != nil {
		return err
	}
	for _, r := range l.Roots {
		warn(cmd, fmt.Sprintf("the server held no key list: from now on it believes root %s, as version %d of the list in this file says; compare it with yours ('runnel keys list')", release.KeyName(r), l.Version))
	}
	return nil
}
