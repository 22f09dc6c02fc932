//go:build !measure

package agent

import "github.com/runnel-fota/runnel/core/device"

const measuring = false

// measured is what measure.go replaces.
func (a *Agent) measured() device.Need { return a.Updater.Step() }
