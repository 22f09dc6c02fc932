// Command maconly is the updater of a small board that believes manifests by the
// answer's MAC alone. It must not link anything that judges a signature.
package main

import (
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/tools/tinygo/check/board/node"
)

func main() {
	node.Run(device.MACOnly())
}
