// Registers a CUDA device that does nothing. A CPU build of PyTorch then runs autograd over fake tensors on "cuda".
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace {

const c10::Device only_gpu(c10::DeviceType::CUDA, 0);

c10::Stream default_stream() {
  return c10::Stream(c10::Stream::DEFAULT, only_gpu);
}

// PyTorch's no-op guard refuses streams and devices; autograd asks for both.
struct OneGpuGuard final : c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA> {
  c10::Device getDevice() const override { return only_gpu; }
  c10::Device exchangeDevice(c10::Device) const override { return only_gpu; }
  c10::Stream getStream(c10::Device) const noexcept override { return default_stream(); }
  c10::Stream getDefaultStream(c10::Device) const override { return default_stream(); }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return default_stream(); }
};

C10_REGISTER_GUARD_IMPL(CUDA, OneGpuGuard)

// The registry finds the hooks by the name of their class.
struct CUDAHooks final : at::CUDAHooksInterface {
  explicit CUDAHooks(at::CUDAHooksArgs) {}
  bool isBuilt() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
};

}  // namespace

namespace at {
using ::CUDAHooks;
REGISTER_CUDA_HOOKS(CUDAHooks)
}  // namespace at
