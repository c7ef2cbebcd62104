// SPDX-License-Identifier: Apache-2.0
// A double of decoding on a GPU, to be preloaded before FFmpeg's libraries. Frames are decoded on the CPU,
// look as if they lay on a GPU, and come from there as NV12. MODIST_NVDEC_DOUBLE says what happens:
//   refuses     the device is there, and its decoder takes no file
//   decodes     all goes well
//   fails:N     the N-th frame cannot be had, and no other after it (0: none at all)
//   every:N     each N-th frame cannot be had
//   sends:N     from the N-th packet on it has no memory
//   shut        no decoder opens
//   blind       no frame comes out of any decoder, those of the CPU included
// At its end the process says on stderr how many frames were fetched. What a real decoder does, and when, is not
// its business.
#include <libavcodec/avcodec.h>
#include <libavutil/hwcontext.h>
#include <libavutil/imgutils.h>

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define API __attribute__((visibility("default"))) int
API av_hwdevice_ctx_create(AVBufferRef **ref, enum AVHWDeviceType type, const char *device,
                           AVDictionary *options, int flags);
API avcodec_open2(AVCodecContext *c, const AVCodec *codec, AVDictionary **options);
API avcodec_send_packet(AVCodecContext *c, const AVPacket *packet);
API avcodec_receive_frame(AVCodecContext *c, AVFrame *frame);
API av_hwframe_transfer_data(AVFrame *to, const AVFrame *from, int flags);

static atomic_int hidden, fetched;

__attribute__((destructor)) static void at_end(void) {
  if (hidden) fprintf(stderr, "double: %d of %d frames fetched\n", (int)fetched, (int)hidden);
}

static const char *behaviour(void) {
  const char *text = getenv("MODIST_NVDEC_DOUBLE");
  return text ? text : "";
}

// N of the behaviour `name:N`; -1: it is another one.
static int number_of(const char *name) {
  size_t len = strlen(name);
  bool is_it = !strncmp(behaviour(), name, len) && behaviour()[len] == ':';
  return is_it ? atoi(behaviour() + len + 1) : -1;
}

// A device of another kind, so that FFmpeg's decoders themselves refuse it.
API av_hwdevice_ctx_create(AVBufferRef **ref, enum AVHWDeviceType type, const char *device,
                           AVDictionary *options, int flags) {
  (void)options, (void)flags;
  if (type != AV_HWDEVICE_TYPE_CUDA || strcmp(device, "0") != 0) return AVERROR(EINVAL);
  *ref = av_hwdevice_ctx_alloc(AV_HWDEVICE_TYPE_DRM);
  return *ref ? 0 : AVERROR(ENOMEM);
}

// f, which is planar, becomes NV12 under the name of a frame on a GPU.
static int hide(AVFrame *f) {
  AVFrame *nv = av_frame_alloc();
  if (!nv) return AVERROR(ENOMEM);
  nv->format = AV_PIX_FMT_NV12;
  nv->width = f->width;
  nv->height = f->height;
  int error = av_frame_get_buffer(nv, 0);
  if (error >= 0) error = av_frame_copy_props(nv, f);
  if (error < 0) return av_frame_free(&nv), error;
  av_image_copy_plane(nv->data[0], nv->linesize[0], f->data[0], f->linesize[0], f->width,
                      f->height);
  for (int y = 0; y < (f->height + 1) / 2; y++) {
    for (int x = 0; x < (f->width + 1) / 2; x++) {
      uint8_t *to = nv->data[1] + (ptrdiff_t)y * nv->linesize[1] + (ptrdiff_t)2 * x;
      to[0] = f->data[1][(ptrdiff_t)y * f->linesize[1] + x];
      to[1] = f->data[2][(ptrdiff_t)y * f->linesize[2] + x];
    }
  }
  av_frame_unref(f);
  av_frame_move_ref(f, nv);
  av_frame_free(&nv);
  f->format = AV_PIX_FMT_CUDA;
  hidden++;
  return 0;
}

API avcodec_open2(AVCodecContext *c, const AVCodec *codec, AVDictionary **options) {
  static int (*real)(AVCodecContext *c, const AVCodec *codec, AVDictionary **options);
  void *symbol = dlsym(RTLD_NEXT, "avcodec_open2");
  memcpy(&real, &symbol, sizeof real);
  if (c->hw_device_ctx && !strcmp(behaviour(), "shut")) return AVERROR_EXTERNAL;
  return real(c, codec, options);
}

API avcodec_send_packet(AVCodecContext *c, const AVPacket *packet) {
  static int (*real)(AVCodecContext *c, const AVPacket *packet);
  static atomic_int num;
  static const struct {
    AVHWAccel accel;
    char private[512];  // newer libraries have their callbacks there: none
  } accelerator;
  void *symbol = dlsym(RTLD_NEXT, "avcodec_send_packet");
  memcpy(&real, &symbol, sizeof real);
  int most = number_of("sends");
  if (!c->hw_device_ctx || most < 0 || ++num < most) return real(c, packet);
  c->hwaccel = &accelerator.accel;
  return AVERROR(ENOMEM);
}

API avcodec_receive_frame(AVCodecContext *c, AVFrame *frame) {
  static int (*real)(AVCodecContext *c, AVFrame *frame);
  void *symbol = dlsym(RTLD_NEXT, "avcodec_receive_frame");
  memcpy(&real, &symbol, sizeof real);
  int error = real(c, frame);
  if (error >= 0 && !strcmp(behaviour(), "blind")) {
    av_frame_unref(frame);
    return AVERROR_INVALIDDATA;
  }
  bool is_there = c->hw_device_ctx && strcmp(behaviour(), "refuses") != 0;
  return error < 0 || !is_there || frame->format != AV_PIX_FMT_YUV420P ? error : hide(frame);
}

API av_hwframe_transfer_data(AVFrame *to, const AVFrame *from, int flags) {
  (void)flags;
  int now = ++fetched, most = number_of("fails"), each = number_of("every");
  if ((most >= 0 && now >= most) || (each > 0 && now % each == 0)) return AVERROR_EXTERNAL;
  to->format = AV_PIX_FMT_NV12;
  to->width = from->width;
  to->height = from->height;
  int error = av_frame_get_buffer(to, 0);
  if (error >= 0)
    av_image_copy(to->data, to->linesize, (const uint8_t **)(uintptr_t)from->data, from->linesize,
                  AV_PIX_FMT_NV12, from->width, from->height);
  return error;
}
