// SPDX-License-Identifier: Apache-2.0
// Status of every call that can fail. The values are also the exit codes of modistc.
#ifndef MODIST_STATUS_H
#define MODIST_STATUS_H

typedef enum md_status {
  MD_OK = 0,
  MD_ERR_RUN = 1,       // compilation or execution failed
  MD_ERR_USAGE = 2,     // text that a user wrote: command line, config, graph, target file
  MD_ERR_MISMATCH = 3,  // verification mismatch or benchmark regression
  MD_ERR_MISSING = 4,   // target, device or library is not there
  MD_ERR_DATA = 5,      // data files: videos, safetensors, checkpoints, artefacts
  MD_ERR_MEMORY = 6,    // memory plan or memory limit
  MD_ERR_NUMERIC = 7,   // NaN or infinity
  MD_ERR_COMM = 8,      // collective timed out or a peer was lost
  MD_STOPPED = 75,      // stopped on request after saving; start me again
} md_status;

#endif
